package session

import "github.com/runnelhq/runnel/pkg/ids"

// notice records that the user became a member of a conversation with the event at seq; 0 if the seq is not known. A
// notice may be late, repeated or wrong: the store is read before anything is sent to the client.
func (s *Session) notice(conversationID ids.Conversation, seq ids.Seq) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.state.Load() != stateOpen:
		s.notices.add(conversationID, seq)
	case s.places.active == nil: // the session has ended
	default:
		s.noticeLocked(conversationID, seq)
	}
}

func (s *Session) noticeLocked(conversationID ids.Conversation, seq ids.Seq) {
	p := s.places.get(conversationID)
	switch {
	case p.Notice(seq):
		s.startLocked(conversationID, p)
	case p.IsResting():
		s.places.rest(conversationID, p)
	}
}

// early holds the notices that arrive while a session connects.
type early struct {
	seqs map[ids.Conversation]ids.Seq // the earliest seq by conversation
	lost bool                         // a notice was dropped, because there were too many
}

func (e *early) add(conversationID ids.Conversation, seq ids.Seq) {
	known, has := e.seqs[conversationID]
	switch {
	case has:
		e.seqs[conversationID] = min(known, seq)
	case len(e.seqs) >= maxEarly:
		e.lost = true
	default:
		if e.seqs == nil {
			e.seqs = map[ids.Conversation]ids.Seq{}
		}
		e.seqs[conversationID] = seq
	}
}
