package session

import (
	"github.com/runnelhq/runnel/pkg/ids"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"

	"github.com/runnelhq/runnel/services/gateway/room"
)

// Behind implements room.Subscriber: it wakes the session's filler.
func (s *Session) Behind(subscription *room.Subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.behind = append(s.behind, subscription)
	if !s.filling {
		s.filling = true
		s.all.workers.Go(s.fill)
	}
}

// Detached implements room.Subscriber: it tells the client that the conversation has ended for it, and removes the subscription.
// The user may have become a member again while the subscription still existed, and the notice of that may have been
// ignored as outdated: so the membership is read from history.
func (s *Session) Detached(subscription *room.Subscription, conversationID ids.Conversation, last ids.Seq) {
	s.link.Queue(s.encodeDetached(conversationID, last))
	s.mu.Lock()
	if s.subscriptions[conversationID] == subscription {
		delete(s.subscriptions, conversationID)
	}
	s.mu.Unlock()
	s.join(conversationID)
}

func (s *Session) encodeDetached(conversationID ids.Conversation, last ids.Seq) []byte {
	return s.encode(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Detached{Detached: &clientv1.Detached{
		ConversationId: string(conversationID), Last: uint64(last),
	}}})
}

// Forked implements room.Subscriber: it reports to the client that its position is not on the log, and stops pushes of the
// conversation to it. The subscription is nil when there was none.
func (s *Session) Forked(subscription *room.Subscription, conversationID ids.Conversation, head, seq ids.Seq) {
	s.all.deps.Metrics.Forks.Inc()
	s.mu.Lock()
	// A later subscription is in its room, and must be found when the session ends.
	if subscription != nil && s.subscriptions[conversationID] == subscription {
		delete(s.subscriptions, conversationID)
	}
	if s.forks == nil {
		s.forks = map[ids.Conversation]struct{}{}
	}
	s.forks[conversationID] = struct{}{} // set before the client is notified: from then on no event is pushed
	s.mu.Unlock()
	s.link.Queue(s.encode(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Forked{Forked: &clientv1.Forked{
		ConversationId: string(conversationID), Head: uint64(head), Seq: uint64(seq),
	}}}))
	s.all.deps.Rooms.FlushSoon(conversationID, s.link)
}
