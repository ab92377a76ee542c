package session

import "github.com/runnelhq/runnel/pkg/ids"

// maxCatchers limits how many conversations of one session catch up at once; the others wait.
const maxCatchers = 32

// waiting is a conversation that waits to catch up.
type waiting struct {
	id    ids.Conversation
	place *place
}

// startLocked starts catching up in a conversation. The caller holds mu.
func (s *Session) startLocked(conversationID ids.Conversation, p *place) {
	s.waiting = append(s.waiting, waiting{conversationID, p})
	if s.catchers < maxCatchers {
		s.catchers++
		s.all.workers.Go(s.catchWaiting)
	}
}

// catchWaiting catches up in the waiting conversations, one after the other.
func (s *Session) catchWaiting() {
	for {
		s.mu.Lock()
		if len(s.waiting) == 0 || s.places.active == nil {
			s.catchers, s.waiting = s.catchers-1, nil
			s.mu.Unlock()
			return
		}
		next := s.waiting[0]
		s.waiting = s.waiting[1:]
		s.mu.Unlock()
		s.catchUp(next.id, next.place)
	}
}
