package session

import "github.com/runnelhq/runnel/pkg/ids"

// notice reports that the user became a member of a conversation.
type notice struct {
	seq ids.Seq // of the event; 0 if it is not known
	now bool    // the event was committed while the session existed
}

// notice records a notice. A notice may be late, repeated or wrong: the store is read before anything is sent to the
// client.
func (s *Session) notice(conversationID ids.Conversation, n notice) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.state.Load() != stateOpen:
		s.notices.add(conversationID, n)
	case s.places.active == nil: // the session has ended
	default:
		s.noticeLocked(conversationID, n)
	}
}

func (s *Session) noticeLocked(conversationID ids.Conversation, n notice) {
	p := s.places.get(conversationID)
	record := p.Notice
	if n.now {
		record = p.NoticeNow
	}
	switch {
	case record(n.seq):
		s.startLocked(conversationID, p)
	case p.IsResting():
		s.places.rest(conversationID, p)
	}
}

// early holds the notices that arrive while a session connects.
type early struct {
	all  map[ids.Conversation]earliest
	lost bool // a notice was dropped, because there were too many
}

// earliest are the earliest notices of a conversation.
type earliest struct {
	any ids.Seq
	now ids.Seq // of those that were committed while the session existed; 0 for none
}

func (e *early) add(conversationID ids.Conversation, n notice) {
	known, has := e.all[conversationID]
	switch {
	case has:
		known.any = min(known.any, n.seq)
	case len(e.all) >= maxEarly:
		e.lost = true
		return
	default:
		known.any = n.seq
	}
	if n.now && (known.now == 0 || n.seq < known.now) {
		known.now = n.seq
	}
	if e.all == nil {
		e.all = map[ids.Conversation]earliest{}
	}
	e.all[conversationID] = known
}
