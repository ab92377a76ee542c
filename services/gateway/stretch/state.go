package stretch

import "github.com/runnelhq/runnel/pkg/ids"

// State records what a client was sent of one conversation.
//
//	resting ──Notice──▶ reading ──Subscribe──▶ live
//	   ▲                 │ ▲ ▲                   │
//	   └──────Rest───────┘ │ └────────End────────┘
//	               Resume──┘   reading, live ──Fork──▶ forked
//
// One goroutine carries out the steps of a state that is reading. The client of a state that is live is served by a
// subscription. State is not safe for concurrent use.
type State struct {
	phase phase
	// open reports whether the client believes that its user is a member: it got an Attach and no Detach yet.
	open bool
	// skipped reports whether the position was reached by Skip.
	skipped bool
	// again reports whether a notice arrived after the view was begun.
	again bool
	// stale reports whether the view may lack what has to be told: a notice named an earlier membership since it was read.
	stale bool
	// inside is the event that began the membership that is open; 0 if that event is before the client's position.
	inside ids.Seq
	// told is the client's position: it was sent every event up to it that its user may see.
	told ids.Seq
	// begin is the earliest membership that a notice or the store named. It is used only while told is 0; after that,
	// reading starts at told.
	begin ids.Seq
	// now is the earliest membership of which a notice says that it began while the client was connected; 0 for none. It and all that
	// follow are not old.
	now ids.Seq
}

type phase uint8

const (
	resting phase = iota
	reading
	live
	forked
)

// Resting is the state of a client that has everything up to a seq, including the end of that membership. The seq is 0 if
// the client was sent nothing.
func Resting(told ids.Seq) State { return State{told: told} }

// Resume is the state of a client that has everything up to a seq, in a conversation whose member its user is not now.
func Resume(told ids.Seq) State { return State{phase: reading, open: true, told: told} }

// Live is the state of a client that is subscribed.
func Live() State { return State{phase: live, open: true} }

// IsResting reports whether no step is left to do.
func (s *State) IsResting() bool { return s.phase == resting }

// IsLive reports whether a subscription serves the client.
func (s *State) IsLive() bool { return s.phase == live }

// IsForked reports whether the client is on another branch of the log.
func (s *State) IsForked() bool { return s.phase == forked }

// IsOpen reports whether the client believes that its user is a member.
func (s *State) IsOpen() bool { return s.open }

// Position is the seq up to which the client has everything; 0 if it was sent nothing.
func (s *State) Position() ids.Seq { return s.told }

// After is the seq after which the store has to be read.
func (s *State) After() ids.Seq {
	if s.told == 0 && s.begin > 0 {
		return s.begin - 1
	}
	return s.told
}

// Notice records that a membership began with the event at seq; 0 if the event is not known. If start is true, the caller
// must begin to carry out steps.
func (s *State) Notice(seq ids.Seq) (start bool) {
	if s.phase == live || s.phase == forked || (seq != 0 && seq <= s.told) {
		return false // the notice is late or repeated; and when a subscription ends, the store is read in any case
	}
	if seq != 0 && (s.begin == 0 || seq < s.begin) {
		s.begin, s.stale = seq, s.phase == reading && s.told == 0
	}
	if s.phase == reading {
		s.again = true
		return false
	}
	s.phase = reading
	return true
}

// NoticeNow is Notice for a membership that was committed while the client was connected. The event may be older than the
// session, because it may have waited in the stream.
func (s *State) NoticeNow(seq ids.Seq) (start bool) {
	if s.skipped {
		// The membership may have been skipped as old before this notice came. Nothing was sent to the client yet.
		s.told, s.stale = 0, true
	}
	if seq != 0 && (s.now == 0 || seq < s.now) {
		s.now = seq
	}
	return s.Notice(seq)
}

// isOld reports whether a stretch began and ended before the client connected.
func (s *State) isOld(one Stretch) bool { return one.Old && (s.now == 0 || one.From < s.now) }

// End records that the subscription ended with the last event of the membership, and that the client was notified. The
// caller must begin to carry out steps: the user may be a member again.
func (s *State) End(last ids.Seq) { *s = State{phase: reading, told: last} }

// Fork records that the client is on another branch of the log. This state is final.
func (s *State) Fork() { *s = State{phase: forked} }

// Done records that a step was carried out.
func (s *State) Done(step Step) {
	switch step.Do {
	case Attach:
		s.open, s.skipped, s.inside, s.told = true, false, step.From, step.From-1
	case Hide:
		s.inside, s.told = step.Last+1, step.Last
	case Tell:
		s.told = step.Last
	case Skip:
		s.skipped, s.told = true, step.Last
	case Detach:
		s.open, s.inside = false, 0
	case Begin:
		s.begin = step.From
	case Subscribe:
		*s = Live()
	case Diverge:
		s.Fork()
	case Rest:
		if s.skipped {
			s.told = 0 // the client was told nothing, and a notice may show that it must be
		}
		*s = Resting(s.told)
	case Again:
		s.again, s.stale = false, false
	case Forget:
		*s = State{phase: reading}
	case LookUp, Read:
	}
}
