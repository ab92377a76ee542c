package session

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/runnelhq/runnel/pkg/ids"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"

	"github.com/runnelhq/runnel/services/gateway/backoff"
	"github.com/runnelhq/runnel/services/gateway/room"
)

// fill sends the session's subscriptions the events up to their rooms' heads, one subscription after another, never faster
// than the client reads. There is at most one filler for a session, and none while all its subscriptions are live.
func (s *Session) fill() {
	for {
		s.mu.Lock()
		if len(s.behind) == 0 {
			s.filling, s.behind = false, nil
			s.mu.Unlock()
			return
		}
		subscription := s.behind[0]
		s.behind = s.behind[1:]
		s.mu.Unlock()
		for wait := time.Duration(0); s.link.WaitForRoom(); {
			more, err := subscription.FillOnce()
			s.link.Flush()
			if err != nil {
				if s.hasEnded() {
					break
				}
				s.all.deps.Rooms.ReadFailed(err, "a client could not be brought up to date yet",
					"connection", s.id, "conversation", subscription.ConversationID())
				wait = backoff.Wait(s.link.Done(), wait)
				continue
			}
			if !more {
				break
			}
		}
	}
}

// fillFormer sends a client the events it lacks of conversations that its user has left or was removed from, one conversation
// after the other, and reports the conversations that it may not know.
func (s *Session) fillFormer(positions []*clientv1.Position) {
	for _, p := range positions {
		s.fillFormerOne(p)
	}
}

func (s *Session) fillFormerOne(p *clientv1.Position) {
	conversationID, former := ids.Conversation(p.GetConversationId()), s.all.deps.Rooms.Former(&s.listener, p)
	for wait := time.Duration(0); s.link.WaitForRoom(); {
		state, head, err := s.readFormer(former)
		switch {
		case status.Code(err) == codes.NotFound:
			s.endFormer(conversationID, 0)
			return
		case err != nil && s.hasEnded():
			return
		case err != nil:
			s.all.deps.Rooms.ReadFailed(err, "the end of a former conversation could not be sent to a client yet",
				"connection", s.id, "conversation", conversationID)
			wait = backoff.Wait(s.link.Done(), wait)
			continue
		}
		switch state {
		case room.FormerMember:
			s.join(conversationID)
			return
		case room.FormerForked:
			s.Forked(nil, conversationID, head, former.Position())
			return
		case room.FormerEnded:
			s.endFormer(conversationID, head)
			return
		default:
			s.link.Flush()
		}
	}
}

// endFormer reports to the client that the conversation has ended for it, unless the user has become a member again
// meanwhile.
func (s *Session) endFormer(conversationID ids.Conversation, last ids.Seq) {
	s.mu.Lock()
	_, subscribed := s.subscriptions[conversationID]
	s.mu.Unlock()
	if !subscribed {
		s.link.Queue(s.encodeDetached(conversationID, last))
	}
	s.link.Flush()
}

// readFormer takes a turn only for reading: a client that is slow to receive what was read must not delay others.
func (s *Session) readFormer(former *room.Former) (state room.FormerState, head ids.Seq, err error) {
	if !s.all.takeTurn(s) {
		return room.FormerMore, 0, errClosing
	}
	defer s.all.returnTurn()
	ctx, cancel := context.WithTimeout(s.all.ctx, s.all.deps.Config.HistoryTimeout)
	defer cancel()
	return former.FillOnce(ctx)
}
