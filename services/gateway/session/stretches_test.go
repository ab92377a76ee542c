package session

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"
)

// show describes a frame that concerns a membership.
func show(f *clientv1.ServerFrame) string {
	switch {
	case f.GetAttached() != nil:
		return fmt.Sprint("attached ", f.GetAttached().GetConversation().GetJoinedSeq())
	case f.GetDetached() != nil:
		return fmt.Sprint("detached ", f.GetDetached().GetLast())
	case f.GetHidden() != nil:
		return fmt.Sprintf("hidden %d-%d", f.GetHidden().GetFirst(), f.GetHidden().GetLast())
	case f.GetEvent() != nil:
		return strconv.FormatUint(f.GetEvent().GetSeq(), 10)
	default:
		return f.String()
	}
}

// requireTold requires that the client receives these frames, and then none.
func (c *client) requireTold(want ...string) {
	c.t.Helper()
	for i := range want {
		require.Equal(c.t, want[i], show(c.next()), "frame %d of %v", i, want)
	}
	c.requireSettled()
	c.quiet()
}

// requireSettled waits until the session has nothing more to tell.
func (c *client) requireSettled() {
	c.t.Helper()
	require.Eventually(c.t, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, p := range c.places.active {
			if !p.IsLive() && !p.IsForked() {
				return false
			}
		}
		return true
	}, patience, 50*time.Microsecond)
}

// putLog makes a log the store's, whose memberships follow from its events.
func (s *stage) putLog(log []*conversationv1.Event) {
	s.store.Set(func() { s.store.Log, s.store.ByLog = log, true })
}

// short returns a log that goes on with a membership of dan that begins and ends: its first event, a message, its last event.
func short(log []*conversationv1.Event) []*conversationv1.Event {
	log = add(log, "dan")
	return remove(branch(log, len(log)+1, "short"), "dan")
}

// A membership that began and ended before the store was read is told, from the event that the notice names to its last event.
func TestAShortMembershipIsTold(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 3, "x")
	s.putLog(log)
	dan := s.connect("dan", frame.Proto)
	s.putLog(branch(short(log), 8, "secret"))
	s.Joined("dan", groupID, 4)
	attached := dan.next().GetAttached().GetConversation()
	require.Equal(t, groupID, attached.GetConversationId())
	require.Equal(t, uint64(4), attached.GetJoinedSeq())
	require.Equal(t, uint64(6), attached.GetHead(), "the client must not read beyond it")
	require.Equal(t, conversationv1.Kind_KIND_GROUP, attached.GetKind())
	dan.requireTold("4", "5", "6", "detached 6")
	s.Joined("dan", groupID, 4)
	dan.requireTold()
}

// Notices that are repeated, late or reordered change nothing. A lost one is made up for by the next.
func TestNoticesDoNotDecideWhatIsTold(t *testing.T) {
	for name, seqs := range map[string][]ids.Seq{
		"in order":                {4, 7, 10},
		"repeated":                {4, 4, 7, 4, 10, 7},
		"the later ones are lost": {4},
		"some are lost":           {4, 10},
		"the first is overtaken":  {7, 4, 10},
		"only the last one comes": {10},
		"without seq":             {4, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			log := branch(nil, 3, "x")
			s.putLog(log)
			dan := s.connect("dan", frame.Proto)
			s.putLog(add(short(short(log)), "dan"))
			for _, seq := range seqs {
				s.Joined("dan", groupID, seq)
			}
			dan.requireTold("attached 4", "4", "5", "6", "detached 6", "attached 7", "7", "8", "9", "detached 9", "attached 10", "10")
			for _, seq := range seqs {
				s.Joined("dan", groupID, seq)
			}
			dan.requireTold()
		})
	}
}

// A membership that ended before the client connected is not told, although a new worker repeats the notice of it.
func TestAMembershipFromBeforeIsNotTold(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 3, "x")
	old := add(log, "dan")
	old[3].TimeMs = time.Now().Add(-time.Minute).UnixMilli()
	s.putLog(remove(old, "dan"))
	dan := s.connect("dan", frame.Proto)
	s.Joined("dan", groupID, 4)
	dan.requireTold()
}

// A membership whose event waited in the stream is told if it was committed while the client was connected, although the event is
// older than the session. The notice says so.
func TestAMembershipThatWaitedInTheStreamIsTold(t *testing.T) {
	for name, told := range map[string]bool{"committed now": true, "committed before": false} {
		s := newStage(t)
		log := branch(nil, 3, "x")
		s.putLog(log)
		dan := s.connect("dan", frame.Proto)
		waited := add(log, "dan")
		waited[3].TimeMs = time.Now().Add(-time.Hour).UnixMilli()
		s.putLog(remove(waited, "dan"))
		committed := time.Now()
		if !told {
			committed = committed.Add(-time.Minute)
		}
		s.JoinedAt("dan", groupID, 4, committed)
		if told {
			dan.requireTold("attached 4", "4", "5", "detached 5")
		} else {
			dan.requireTold()
		}
		s.JoinedAt("dan", groupID, 4, committed)
		dan.requireTold()
		require.NotEmpty(t, name)
	}
}

// A user who is removed, and is a member again before the subscription took its first event, is told of both memberships.
func TestAMemberAgainBeforeTheFirstEvent(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 3, "x")
	s.putLog(log)
	dan := s.connect("dan", frame.Proto)
	log = add(log, "dan")
	s.putLog(log)
	s.history.once(&s.history.beforeHeads, func() { s.putLog(add(remove(log, "dan"), "dan")) })
	s.Joined("dan", groupID, 4)
	dan.requireTold("attached 4", "4", "5", "detached 5", "attached 6", "6")
}

// A user who is removed before the answer of the store is used, or before the list of conversations has come, is told of the whole
// membership.
func TestARemovalBeforeTheListAnswers(t *testing.T) {
	for name, after := range map[string]bool{"before the answer": false, "after the answer": true} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			log := branch(nil, 3, "x")
			s.putLog(log)
			dan := s.connect("dan", frame.Proto)
			s.putLog(add(log, "dan"))
			end := func() { s.putLog(remove(add(log, "dan"), "dan")) }
			if after {
				s.history.once(&s.history.afterList, end)
			} else {
				end()
			}
			s.Joined("dan", groupID, 4)
			dan.requireTold("attached 4", "4", "5", "detached 5")
		})
	}
}

// A notice that comes while the membership is being looked up, served and ended does not begin it again.
func TestAMembershipThatEndsDuringASecondNotice(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 3, "x")
	s.putLog(log)
	dan := s.connect("dan", frame.Proto)
	log = add(log, "dan")
	s.putLog(log)
	s.history.once(&s.history.afterList, func() {
		s.Joined("dan", groupID, 4)
		s.putLog(remove(log, "dan"))
	})
	s.history.once(&s.history.beforeHeads, func() { s.Joined("dan", groupID, 4) })
	s.Joined("dan", groupID, 4)
	dan.requireTold("attached 4", "4", "5", "detached 5")
	s.Joined("dan", groupID, 4)
	dan.requireTold()
}

// A device that resumes inside a former membership gets the rest of it, also if the user becomes a member again before it was
// read, or between the last event of it and the end.
func TestAResumeIntoAFormerAndAPresentMembership(t *testing.T) {
	for name, moment := range map[string]func(*hooked) *func(){
		"before it is read": func(h *hooked) *func() { return &h.beforePast },
		"after it was read": func(h *hooked) *func() { return &h.afterPast },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			log := short(branch(nil, 3, "x"))
			s.putLog(log)
			s.history.once(moment(s.history), func() {
				s.putLog(add(branch(log, 8, "secret"), "dan"))
				s.Joined("dan", groupID, 9)
			})
			dan := s.connect("dan", frame.Proto, position(log[3]))
			dan.requireTold("5", "6", "detached 6", "attached 9", "9")
		})
	}
}

// A client on another branch of the log is notified although its user became a member again before the store was read.
func TestAResumeOnAnotherBranchIsJudgedThoughTheUserIsAMemberAgain(t *testing.T) {
	s := newStage(t)
	log := short(branch(nil, 3, "x"))
	s.putLog(log)
	s.history.once(&s.history.beforePast, func() {
		s.putLog(add(log, "dan"))
		s.Joined("dan", groupID, 7)
	})
	other := add(branch(log[:3], 3, "x"), "eve")
	dan := s.connect("dan", frame.Proto, position(other[3]))
	dan.requireForked(7, 4)
	dan.requireTold()
}

// The number of positions of ended memberships that a session keeps is limited, and so is that of notices while it connects.
func TestWhatASessionKeepsIsBounded(t *testing.T) {
	ps := places{active: map[ids.Conversation]*place{}}
	for i := range 2 * maxRested {
		id := ids.Conversation(strconv.Itoa(i))
		p := ps.get(id)
		p.End(5)
		ps.rest(id, p)
	}
	require.Empty(t, ps.active)
	require.Len(t, ps.rested, maxRested)
	var e early
	for i := range maxEarly {
		e.add(ids.Conversation(strconv.Itoa(i)), notice{seq: 5})
	}
	e.add("7", notice{4, true})
	e.add("7", notice{seq: 3})
	e.add("7", notice{6, true})
	require.False(t, e.lost)
	require.Equal(t, earliest{3, 4}, e.all["7"])
	e.add("one more", notice{1, true})
	require.True(t, e.lost)
	require.Len(t, e.all, maxEarly)
}
