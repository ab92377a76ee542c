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

// Detached implements room.Subscriber: it tells the client that the membership has ended. It also checks whether a new
// membership has begun: its notice may have been ignored while the subscription existed.
func (s *Session) Detached(subscription *room.Subscription, conversationID ids.Conversation, last ids.Seq) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.places.active[conversationID]
	if p == nil || p.subscription != subscription {
		return // the session has ended
	}
	s.link.Queue(s.encodeDetached(conversationID, last))
	p.subscription = nil
	p.End(last)
	s.startLocked(conversationID, p)
}

// Forked implements room.Subscriber: it reports to the client that its position is not on the log, and stops the pushes
// of the conversation. The subscription is nil when there was none.
func (s *Session) Forked(subscription *room.Subscription, conversationID ids.Conversation, head, seq ids.Seq) {
	s.all.deps.Metrics.Forks.Inc()
	s.mu.Lock()
	if s.places.active == nil {
		s.mu.Unlock()
		return // the session has ended
	}
	p := s.places.get(conversationID)
	if subscription != p.subscription {
		s.mu.Unlock()
		return // a newer subscription has replaced this one
	}
	p.subscription = nil
	p.Fork() // under the same lock as the push: no event may be pushed after it
	s.link.Queue(s.encode(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Forked{Forked: &clientv1.Forked{
		ConversationId: string(conversationID), Head: uint64(head), Seq: uint64(seq),
	}}}))
	s.mu.Unlock()
	s.all.deps.Rooms.FlushSoon(conversationID, s.link)
}
