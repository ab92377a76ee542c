package session

import (
	"context"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/gateway/metrics"
	"github.com/runnelhq/runnel/services/gateway/requests"
	"github.com/runnelhq/runnel/services/gateway/room"
)

// join subscribes to a conversation that the user became a member of while connected.
func (s *Session) join(conversationID ids.Conversation) {
	s.mu.Lock()
	if s.state.Load() != stateOpen {
		s.joins = append(s.joins, conversationID)
		s.mu.Unlock()
		return
	}
	_, subscribed := s.subscriptions[conversationID]
	_, forked := s.forks[conversationID]
	_, underWay := s.joining[conversationID]
	if subscribed || forked || underWay || s.hasEnded() {
		if underWay {
			s.joining[conversationID] = true
		}
		s.mu.Unlock()
		return // a subscription that is being given up looks up the conversation again itself (Detached)
	}
	if s.joining == nil {
		s.joining = map[ids.Conversation]bool{}
	}
	s.joining[conversationID] = false
	s.mu.Unlock()
	s.all.workers.Go(func() {
		for again := true; again; {
			if !s.all.takeTurn(s) {
				return
			}
			s.joinNow(conversationID)
			s.all.returnTurn()
			s.mu.Lock()
			again = s.joining[conversationID]
			if again {
				s.joining[conversationID] = false
			} else {
				delete(s.joining, conversationID)
			}
			s.mu.Unlock()
		}
	})
}

// joinNow reads the membership from history, so that a late or repeated notice does no harm.
func (s *Session) joinNow(conversationID ids.Conversation) {
	deps := &s.all.deps
	ctx, cancel := context.WithTimeout(s.all.ctx, deps.Config.HistoryTimeout)
	defer cancel()
	// The list by rising id begins right before the conversation: one row, with all that a subscription needs.
	deps.Metrics.Reads[metrics.ReadList].Inc()
	list, err := deps.History.ListConversations(ctx, &historyv1.ListConversationsRequest{
		UserId: string(s.user.id), After: string(conversation.Before(conversationID)), Limit: 1,
	})
	if err != nil {
		if !s.hasEnded() {
			deps.Log.Warn("a joined conversation could not be looked up; the client is asked to reconnect", "connection", s.id, "error", err)
			s.link.Close(errcode.CloseUnavailable, "the history service is unavailable")
		}
		return
	}
	if len(list.GetConversations()) == 0 || ids.Conversation(list.GetConversations()[0].GetConversationId()) != conversationID {
		return // the user has left again meanwhile
	}
	summary := list.GetConversations()[0]
	subscription := s.listener.Subscribe(summary, ids.Seq(summary.GetJoinedSeq()-1), nil)
	s.mu.Lock()
	_, subscribed := s.subscriptions[conversationID]
	if _, forked := s.forks[conversationID]; subscribed || forked || s.subscriptions == nil {
		s.mu.Unlock()
		return
	}
	s.subscriptions[conversationID] = subscription
	s.mu.Unlock()
	s.reply(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Attached{Attached: &clientv1.Attached{Conversation: requests.Conversation(summary)}}})
	deps.Rooms.Enter(map[ids.Conversation]*room.Subscription{conversationID: subscription}, []*historyv1.Summary{summary})
	s.mu.Lock()
	ended := s.subscriptions == nil
	s.mu.Unlock()
	if ended {
		deps.Rooms.Leave(subscription) // the session ended in between and did not see this subscription
	}
}

// relist compares the list of conversations with the store.
func (s *Session) relist() {
	s.all.workers.Go(func() {
		if !s.all.takeTurn(s) {
			return
		}
		defer s.all.returnTurn()
		ctx, cancel := context.WithTimeout(s.all.ctx, s.all.deps.Config.HistoryTimeout)
		defer cancel()
		summaries, revokedBefore, err := s.all.listAll(ctx, s.user.id)
		if err != nil {
			return // tried again the next time
		}
		s.all.revoke(s.user.id, revokedBefore, nil)
		for _, summary := range summaries {
			s.join(ids.Conversation(summary.GetConversationId()))
		}
	})
}
