package session

import (
	"time"

	"github.com/runnelhq/runnel/services/gateway/backoff"
)

// fill sends the session's subscriptions the events up to their rooms' heads, one subscription after another, never
// faster than the client reads. A session has at most one filler, and none while all its subscriptions are live.
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
