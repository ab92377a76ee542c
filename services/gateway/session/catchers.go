package session

import "github.com/runnelhq/runnel/pkg/ids"

// maxCatchers limits how many conversations of one session are caught up at once; the others wait.
const maxCatchers = 32

// waiting is a conversation that waits for being caught up.
type waiting struct {
	id    ids.Conversation
	place *place
}

// startLocked has a place caught up. The caller holds mu.
func (s *Session) startLocked(conversationID ids.Conversation, p *place) {
	s.waiting = append(s.waiting, waiting{conversationID, p})
	if s.catchers < maxCatchers {
		s.catchers++
		s.all.workers.Go(s.catchWaiting)
	}
}

// catchWaiting catches up what waits, one conversation after the other.
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
