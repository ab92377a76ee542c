package room

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/gateway/metrics"
)

// The position of a client that reconnects is compared by hash: at the head, in memory, and where history is read.
func TestAResumedClientIsToldThatItIsOnAnotherBranch(t *testing.T) {
	good := branch(nil, 6, "kept")
	undone := branch(good[:3], 9, "undone")
	grown := branch(good, 2000, "kept")
	for name, c := range map[string]struct {
		log  []*conversationv1.Event
		live int // events that arrive live after the room is open, and are in memory
		has  *clientv1.Position
		head uint64
	}{
		"beyond the end":                    {good, 0, position(undone[8]), 6},
		"beyond the end, without a hash":    {good, 0, &clientv1.Position{ConversationId: groupID, Seq: 9}, 6},
		"another event at the head":         {good, 0, position(undone[5]), 6},
		"another event before the head":     {good, 0, position(undone[3]), 6},
		"another event in memory":           {good, 4, position(undone[4]), 6},
		"another event right before memory": {good, 2, position(undone[3]), 6},
		"another event far back":            {grown, 0, position(undone[5]), 2000},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			s.store.Put(c.log[:len(c.log)-c.live])
			r := s.room()
			first := s.client("bob", frame.Proto)
			first.resume()
			s.store.Put(c.log)
			s.live(r, c.log[len(c.log)-c.live:]...)
			first.seqs(c.live)

			ann := s.client("ann", frame.JSON)
			ann.resume(c.has)
			ann.requireForked(c.head, c.has.GetSeq())
			more := branch(c.log, len(c.log)+1, "new")
			s.store.Put(more)
			s.live(r, more[len(more)-1])
			first.seqs(1)
			ann.quiet()
			require.Nil(t, ann.subscription())
		})
	}
}

// A client whose position is on the log is sent the events after it; the comparison costs no additional read.
func TestAResumedClientOnTheLogGoesOn(t *testing.T) {
	log := branch(nil, 6, "kept")
	for name, has := range map[string]*clientv1.Position{
		"with its hash": position(log[3]), "without a hash": {ConversationId: groupID, Seq: 4},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			s.store.Put(log)
			r := s.room()
			ann := s.client("ann", frame.Proto)
			ann.resume(has)
			require.Equal(t, []uint64{5, 6}, ann.seqs(2))
			s.store.Set(func() { require.Equal(t, 1, s.store.Reads) })

			atHead := s.client("bob", frame.Proto)
			atHead.resume(position(log[5]))
			more := branch(log, 7, "new")
			s.store.Put(more)
			s.live(r, more[6])
			require.Equal(t, []uint64{7}, ann.seqs(1))
			require.Equal(t, []uint64{7}, atHead.seqs(1))
			require.Zero(t, testutil.ToFloat64(s.metrics.Reloads))
		})
	}
}

// A client may know a newer head than the gateway, from another gateway. That is no fork, unless the events that arrive
// differ.
func TestAClientMayBeAheadOfTheRoom(t *testing.T) {
	for name, c := range map[string]struct {
		other, lost bool
		head        uint64
	}{
		"and right": {}, "and the client is on another branch": {other: true, head: 6}, "and the client has the lost event": {lost: true, head: 4},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			log := branch(nil, 6, "kept")
			s.store.Put(log[:4])
			r := s.room()
			s.store.Put(log)
			s.store.Set(func() { s.store.Down = true })
			ann := s.client("ann", frame.Proto)
			has := position(log[5])
			if c.other {
				has = position(branch(log[:4], 6, "undone")[5])
			}
			ann.subscribe([]*historyv1.Summary{{ConversationId: groupID, Head: 6, JoinedSeq: 1}}, has)
			ann.quiet()
			if c.lost {
				s.store.Put(log[:4])
			}
			s.store.Set(func() { s.store.Down = false })
			if c.other || c.lost {
				ann.requireForked(c.head, 6)
				return
			}
			more := branch(log, 7, "new")
			s.store.Put(more)
			s.live(r, more[6])
			require.Equal(t, []uint64{7}, ann.seqs(1))
		})
	}
}

// A client that is ahead has the events that the room takes: they are not sent again, and the client is not put behind, so that the
// event after them comes at once, also while history is unavailable.
func TestAClientThatIsAheadIsLeftAlone(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 7, "x")
	s.store.Put(log[:4])
	r := s.room()
	s.store.Put(log[:6])
	s.store.Set(func() { s.store.Down = true })
	ann := s.client("ann", frame.Proto)
	ann.filling = true // no filler starts
	ann.subscribe([]*historyv1.Summary{{ConversationId: groupID, Head: 6, JoinedSeq: 1}}, position(log[5]))
	for _, event := range log[4:] {
		s.live(r, event)
		require.Equal(t, ids.Seq(event.GetSeq()), r.Show(1).Head)
		require.False(t, r.Show(1).Subscriptions[0].Behind, "at %d", event.GetSeq())
	}
	require.Equal(t, []uint64{7}, ann.seqs(1))
	ann.quiet()
}

// deadBranch is a room in which ann has everything of a log, and bob has the events after the third only in his queue.
type deadBranch struct {
	*stage

	r            *Room
	kept, undone []*conversationv1.Event
	ann, bob     *client
}

func newDeadBranch(t *testing.T) *deadBranch {
	t.Helper()
	d := &deadBranch{stage: newStage(t), kept: branch(nil, 3, "kept")}
	d.undone = branch(d.kept, 8, "undone")
	d.store.Put(d.kept)
	d.r = d.room()
	d.bob = d.client("bob", frame.Proto)
	d.bob.resume(position(d.kept[2]))
	d.r.mu.Lock()
	d.bob.subscription().behind = true // his filler is slow
	d.r.mu.Unlock()
	d.ann = d.client("ann", frame.JSON)
	d.ann.resume()
	d.live(d.r, d.undone[3:]...)
	d.ann.seqs(5)
	return d
}

// goOn lets bob's filler continue.
func goOn(r *Room, bob *client) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := bob.subscription()
	s.behind = false
	r.putBehindLocked(s)
}

// The store goes back and continues with other events. Clients that were sent events that are gone are notified; the others
// miss nothing.
func TestAStoreThatGoesBackIsNoticed(t *testing.T) {
	for name, notice := range map[string]func(s *stage, r *Room, anew []*conversationv1.Event){
		"by the next event, at another seq": func(s *stage, r *Room, anew []*conversationv1.Event) { s.live(r, anew[3]) },
		"by the next event, beyond the head": func(s *stage, r *Room, anew []*conversationv1.Event) {
			anew = branch(anew, 9, "anew")
			s.store.Put(anew)
			s.live(r, anew[8])
		},
		"by a gap that is read": func(s *stage, r *Room, anew []*conversationv1.Event) {
			anew = branch(anew, 11, "anew")
			s.store.Put(anew)
			s.live(r, anew[10])
		},
		"by comparing heads": func(s *stage, _ *Room, _ []*conversationv1.Event) { s.hub.Compare(s.t.Context(), patience) },
		"by the head's hash": func(s *stage, _ *Room, anew []*conversationv1.Event) {
			s.store.Put(branch(anew, 8, "anew"))
			s.hub.Compare(s.t.Context(), patience)
		},
		"by a gap whose events no longer exist": func(s *stage, r *Room, _ []*conversationv1.Event) {
			r.mu.Lock()
			gone := branch(newLog(r), 10, "undone")
			r.mu.Unlock()
			s.live(r, gone[9])
		},
		"by a client that connects": func(s *stage, _ *Room, _ []*conversationv1.Event) { s.client("dan", frame.Proto).resume() },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDeadBranch(t)
			s, r, kept, ann, bob := d.stage, d.r, d.kept, d.ann, d.bob
			anew := branch(kept, 4, "anew")
			s.store.Put(anew)
			notice(s, r, anew)
			f := ann.next().GetForked()
			require.Equal(t, uint64(8), f.GetSeq())
			s.store.Set(func() { anew = s.store.Log })
			require.Equal(t, uint64(len(anew)), f.GetHead())
			goOn(r, bob)
			for i := 3; i < len(anew); i++ {
				event := bob.next().GetEvent()
				require.Equal(t, anew[i].GetHash(), event.GetHash(), "seq %d", i+1)
			}
			more := branch(anew, len(anew)+1, "more")
			s.store.Put(more)
			s.live(r, more[len(more)-1])
			require.Equal(t, []uint64{uint64(len(more))}, bob.seqs(1))
			ann.quiet()
			require.InDelta(t, 1, testutil.ToFloat64(s.metrics.Reloads), 0)
		})
	}
}

// newLog makes a log that ends where the room's does.
func newLog(r *Room) []*conversationv1.Event {
	log := make([]*conversationv1.Event, r.head)
	log[r.head-1] = &conversationv1.Event{ConversationId: string(r.id), Seq: uint64(r.head), Hash: r.headHash}
	return log
}

// A repeat that is older than the events in memory may be the first sign that the log went back.
func TestARepeatThatIsNotInMemoryIsLookedInto(t *testing.T) {
	s := newStage(t)
	kept := branch(nil, 3, "kept")
	s.store.Put(branch(kept, 8, "undone"))
	r := s.room()
	ann := s.client("ann", frame.Proto)
	ann.resume()
	anew := branch(kept, 4, "anew")
	s.store.Put(anew)
	s.live(r, anew[3])
	ann.requireForked(4, 8)
}

// A live message of unknown origin makes the room query the store, and disturbs no client.
func TestAReloadThatFindsTheSameLogDisturbsNobody(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 6, "kept")
	s.store.Put(log)
	r := s.room()
	ann, bob := s.client("ann", frame.Proto), s.client("bob", frame.Proto)
	ann.resume() // the event has no hash
	bob.resume(position(log[4]))
	require.Equal(t, []uint64{6}, bob.seqs(1))
	s.live(r, branch(branch(log[:5], 6, "other"), 7, "other")[6])
	require.InDelta(t, 1, testutil.ToFloat64(s.metrics.Reloads), 0)
	more := branch(log, 7, "new")
	s.store.Put(more)
	s.live(r, more[6])
	require.Equal(t, []uint64{7}, ann.seqs(1))
	require.Equal(t, []uint64{7}, bob.seqs(1))
}

// A client whose events are not known cannot be assumed to be on the log.
func TestAClientWithoutAHashIsForkedWhenTheLogIsReplaced(t *testing.T) {
	s := newStage(t)
	kept := branch(nil, 3, "kept")
	s.store.Put(kept)
	r := s.room()
	s.store.Set(func() { s.store.Down = true })
	ann := s.client("ann", frame.Proto)
	ann.subscribe([]*historyv1.Summary{{ConversationId: groupID, Head: 3, JoinedSeq: 1}}, &clientv1.Position{ConversationId: groupID, Seq: 2})
	s.live(r, branch(kept, 5, "undone")[3:]...)
	anew := branch(kept, 4, "anew")
	s.store.Put(anew)
	s.live(r, anew[3])
	s.store.Set(func() { s.store.Down = false })
	ann.requireForked(4, 2)
	ann.quiet()
}

// A client that has everything of the dead branch, and is sent some of it again, is detected before that.
func TestAClientThatIsSentEventsAgainIsJudgedByWhatItHas(t *testing.T) {
	d := newDeadBranch(t)
	s, r, kept, ann := d.stage, d.r, d.kept, d.ann
	s.store.Set(func() { s.store.Down = true })
	r.mu.Lock()
	again := ann.subscription()
	again.sent = 3 // as retry does
	r.mu.Unlock()
	anew := branch(kept, 12, "anew")
	s.store.Put(anew)
	s.live(r, anew[7])
	s.store.Set(func() { s.store.Down = false })
	ann.requireForked(12, 8)
	ann.quiet()
}

// Clients that reconnect read events from the store that the room does not have, and detect that they do not fit.
func TestAPageThatDoesNotFitTheRoomIsNoticed(t *testing.T) {
	d := newDeadBranch(t)
	s, kept, ann := d.stage, d.kept, d.ann
	anew := branch(kept, 8, "anew")
	s.store.Put(anew)
	dan := s.client("dan", frame.Proto)
	dan.resume(position(kept[1]))
	ann.requireForked(8, 8)
	for _, event := range anew[2:] {
		require.Equal(t, event.GetHash(), dan.next().GetEvent().GetHash())
	}
}

// The list of conversations comes from the store: no event of a dead branch is sent again to a client that is beyond it.
func TestAClientOfTheDeadBranchIsToldAtOnce(t *testing.T) {
	d := newDeadBranch(t)
	s, kept, undone := d.stage, d.kept, d.undone
	s.store.Put(branch(kept, 4, "anew"))
	dan := s.client("dan", frame.Proto)
	dan.resume(position(undone[7]))
	dan.requireForked(4, 8)
	dan.quiet()
}

// A membership that ended only on the dead branch continues.
func TestAMembershipThatEndedOnTheDeadBranchGoesOn(t *testing.T) {
	d := newDeadBranch(t)
	s, r, kept, undone, ann, bob := d.stage, d.r, d.kept, d.undone, d.ann, d.bob
	removed := next(undone, "cem", &conversationv1.Body{Action: &conversationv1.Body_RemoveMember{RemoveMember: &conversationv1.RemoveMember{Member: "bob"}}})
	s.live(r, removed)
	ann.seqs(1)
	anew := branch(kept, 5, "anew")
	s.store.Put(anew)
	s.live(r, anew[3])
	ann.requireForked(5, 9)
	goOn(r, bob)
	require.Equal(t, []uint64{4, 5}, bob.seqs(2))
	more := branch(anew, 10, "anew")
	s.store.Put(more)
	s.live(r, more[5:]...)
	require.Equal(t, []uint64{6, 7, 8, 9, 10}, bob.seqs(5))
	r.mu.Lock()
	bob.subscription().sent = 6 // as retry does: the filler checks where the membership ends
	r.mu.Unlock()
	goOn(r, bob)
	require.Equal(t, []uint64{7, 8, 9, 10}, bob.seqs(4))
	bob.quiet()
}

// An answer of the store that was requested before a reload is ignored afterwards.
func TestAnAnswerAboutTheDeadBranchIsIgnored(t *testing.T) {
	d := newDeadBranch(t)
	s, r, kept, ann := d.stage, d.r, d.kept, d.ann
	before := r.standpoint()
	anew := branch(kept, 4, "anew")
	s.store.Put(anew)
	s.live(r, anew[3])
	ann.requireForked(4, 8)
	r.compare(before, &historyv1.Head{ConversationId: groupID, Head: 4, HeadHash: anew[3].GetHash()})
	require.InDelta(t, 1, testutil.ToFloat64(s.metrics.Reloads), 0)
}

// After an event of the dead branch arrives late, the room does not wait for the events before it, and a client that has it
// is notified.
func TestALateEventOfADeadBranchIsGivenUp(t *testing.T) {
	s := newStage(t)
	kept := branch(nil, 3, "kept")
	undone := branch(kept, 8, "undone")
	s.store.Put(kept)
	r := s.room()
	ann := s.client("ann", frame.Proto)
	ann.resume(position(kept[2]))
	s.live(r, undone[6]) // 4 to 6 are missing, also in the store
	require.Eventually(t, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return !r.catching && r.seen == 3
	}, patience, time.Millisecond)
	anew := branch(kept, 4, "anew")
	s.store.Put(anew)
	s.live(r, anew[3])
	require.Equal(t, anew[3].GetHash(), ann.next().GetEvent().GetHash())
}

// A conversation that the store no longer knows has no position.
func TestAConversationThatIsGoneForksItsClients(t *testing.T) {
	d := newDeadBranch(t)
	s, ann := d.stage, d.ann
	s.store.Put(nil)
	s.hub.Compare(t.Context(), patience)
	ann.requireForked(0, 8)
}

// While the store is unavailable, a room that must be reloaded waits for it.
func TestAReloadWaitsForTheStore(t *testing.T) {
	d := newDeadBranch(t)
	s, r, kept, ann := d.stage, d.r, d.kept, d.ann
	s.store.Put(branch(kept, 4, "anew"))
	s.store.Set(func() { s.store.Down = true })
	s.live(r, branch(kept, 4, "anew")[3])
	require.Eventually(t, func() bool {
		return testutil.ToFloat64(s.metrics.Reads[metrics.ReadHeads]) > 2
	}, patience, time.Millisecond)
	ann.quiet()
	s.store.Set(func() { s.store.Down = false })
	ann.requireForked(4, 8)
}

// The position may be before the user's current membership, where the client sees only the events that the user may read.
func TestAPositionBeforeTheMembershipIsJudged(t *testing.T) {
	log := branch(nil, 8, "kept")
	undone := branch(log[:1], 8, "undone")
	for name, c := range map[string]struct {
		has  *clientv1.Position
		want func(c *client)
	}{
		"right": {position(log[1]), func(c *client) {
			require.Equal(t, []uint64{3}, c.seqs(1))
			require.Equal(t, uint64(4), c.next().GetHidden().GetFirst())
			require.Equal(t, []uint64{6, 7, 8}, c.seqs(3))
		}},
		"at the end of the earlier one": {position(log[2]), func(c *client) {
			require.Equal(t, uint64(4), c.next().GetHidden().GetFirst())
			require.Equal(t, []uint64{6, 7, 8}, c.seqs(3))
		}},
		"hidden from the user": {&clientv1.Position{ConversationId: groupID, Seq: 4, Hash: position(undone[3]).GetHash()}, func(c *client) {
			require.Equal(t, uint64(5), c.next().GetHidden().GetFirst())
			require.Equal(t, []uint64{6, 7, 8}, c.seqs(3))
		}},
		"another event": {position(undone[1]), func(c *client) { c.requireForked(8, 2) }},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			s.store.Put(log)
			s.store.Set(func() { s.store.Earlier, s.store.Joined = 3, 6 })
			s.room()
			ann := s.client("ann", frame.Proto)
			ann.resume(c.has)
			c.want(ann)
			ann.quiet()
		})
	}
}

// A conversation that the user left is compared with the log, too.
func TestAFormerConversationMayFork(t *testing.T) {
	log := branch(nil, 6, "kept")
	undone := branch(log[:2], 9, "undone")
	for name, c := range map[string]struct {
		has    *clientv1.Position
		forked bool
	}{
		"right":          {position(log[3]), false},
		"without a hash": {&clientv1.Position{ConversationId: groupID, Seq: 4}, false},
		"another event":  {position(undone[3]), true},
		"at the end":     {position(undone[5]), true},
		"beyond the end": {position(undone[8]), true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			s.store.Put(log)
			s.store.Set(func() { s.store.Left = 6 })
			ann := s.client("ann", frame.JSON)
			ann.resume(c.has)
			if c.forked {
				ann.requireForked(6, c.has.GetSeq())
				ann.quiet()
				require.Nil(t, ann.subscription())
				return
			}
			require.Equal(t, []uint64{5, 6}, ann.seqs(2))
			require.Equal(t, uint64(6), ann.next().GetDetached().GetLast())
		})
	}
}

// A long stretch is read in pages. Only the client's own position is compared.
func TestAFormerConversationOfSeveralPages(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 3*maxMessageEvents, "kept")
	s.store.Put(log)
	s.store.Set(func() { s.store.Left = ids.Seq(len(log)) })
	ann := s.client("ann", frame.Proto)
	ann.resume(position(log[3]))
	seqs := ann.seqs(len(log) - 4)
	require.Equal(t, uint64(5), seqs[0])
	require.Equal(t, uint64(len(log)), ann.next().GetDetached().GetLast())
}
