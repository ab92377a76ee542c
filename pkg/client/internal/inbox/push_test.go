package inbox_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/client/internal/inbox"
	"github.com/runnelhq/runnel/pkg/client/internal/logtest"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

func TestEventsAreToldOnceAndInOrder(t *testing.T) {
	log := logtest.New("c", 6)
	f := started(t, log)
	f.push(log, 1, 2, 2, 1, 3)
	require.Equal(t, "1; 2; 3", f.takeTold())
	require.EqualValues(t, 2, f.Stats().RepeatsDropped)
	require.EqualValues(t, 3, f.Stats().Events)
	seq, known := f.Position("c")
	require.True(t, known)
	require.EqualValues(t, 3, seq)
	_, known = f.Position("d")
	require.False(t, known)
	require.Empty(t, f.reads)
}

func TestAGapIsReadBeforeWhatComesAfterIt(t *testing.T) {
	log := logtest.New("c", 6)
	f := started(t, log)
	f.push(log, 1, 4, 5)
	require.Equal(t, "1", f.takeTold())
	require.Len(t, f.reads, 1, "one question for one gap")
	require.EqualValues(t, 1, f.Stats().GapsSeen)
	read := f.answer(t, log)
	require.EqualValues(t, 6, read.After(), "it is asked from where the conversation is when the question is sent")
	require.Equal(t, "2; 3; 4; 5; 6", f.takeTold())
	require.EqualValues(t, 1, f.Stats().PagesRead)

	// Pushed events close the gap; the held events then follow at once.
	log.Grow(4)
	f.push(log, 9)
	f.push(log, 7, 8)
	require.Equal(t, "7; 8; 9", f.takeTold())
	f.answer(t, log)
	require.Equal(t, "10", f.takeTold())
	require.Empty(t, f.reads)
}

func TestALongGapIsReadPageByPage(t *testing.T) {
	log := logtest.New("c", 301)
	f := started(t, log)
	f.push(log, 301)
	require.Equal(t, []uint64{0, 128, 256}, f.answerAll(t, log))
	require.EqualValues(t, 301, f.Stats().Events)
}

func TestOnlyAFewConversationsAreReadAtOnce(t *testing.T) {
	f := newFixture(clientv1.Start_START_FIRST)
	connected := &clientv1.Connected{}
	var logs []*logtest.Log
	for _, id := range []string{"a", "b", "c", "d", "e", "f"} {
		log := logtest.New(id, 3)
		logs = append(logs, log)
		connected.Conversations = append(connected.Conversations, info(log))
	}
	f.connect(connected)
	for _, log := range logs {
		f.push(log, 3)
	}
	require.Len(t, f.reads, 4)
	require.Len(t, f.answerAll(t, logs...), 6)
	require.EqualValues(t, 18, f.Stats().Events)
}

func TestEventsWaitUntilTheProgramHasRoom(t *testing.T) {
	log := logtest.New("c", maxRoom+300)
	f := started(t, log)
	f.slow = true
	for seq := range log.Head() {
		f.push(log, seq+1)
	}
	require.EqualValues(t, maxRoom, f.Stats().Events)
	require.EqualValues(t, 1, f.Stats().EventsPutOff, "what comes after the first one is a gap")
	require.Empty(t, f.reads, "nothing is read while there is no room")
	f.handAll()
	for len(f.reads) > 0 {
		f.answer(t, log)
		f.handAll()
	}
	seq, _ := f.Position("c")
	require.EqualValues(t, maxRoom+300, seq)
}

func TestNothingIsHeldWithoutRoom(t *testing.T) {
	log := logtest.New("c", 300)
	f := started(t, log)
	f.slow, f.room = true, 1
	f.push(log, 1, 4)
	f.room, f.slow = maxRoom, false
	f.push(log, 2, 3)
	require.Equal(t, "1; 2; 3", f.takeTold(), "4 was not held")
}

func TestHiddenStretches(t *testing.T) {
	log := logtest.New("c", 20)
	f := started(t, log)
	f.push(log, 1)
	f.hide(log, 1, 1)
	require.Equal(t, "1", f.takeTold())
	f.hide(log, 2, 4)
	f.push(log, 5)
	f.hide(log, 4, 7)
	require.Equal(t, "(2-4); 5; (6-7)", f.takeTold())
	require.EqualValues(t, 2, f.Stats().Hidden)

	// A hidden stretch after a gap makes the client read a page, which also contains the stretch.
	log.Hide(10, 12)
	f.hide(log, 10, 12)
	f.answerAll(t, log)
	require.Equal(t, "8; 9; (10-12); 13; 14; 15; 16; 17; 18; 19; 20", f.takeTold())
	f.hide(logtest.New("unknown", 1), 1, 1)
	require.Empty(t, f.takeTold())
}

func TestAPageThatBringsNothingIsAskedForAgainAndThenBelieved(t *testing.T) {
	log := logtest.New("c", 3)
	f := started(t, log)
	f.push(log, 1, 2, 3)
	longer := logtest.New("c", 5)
	f.push(longer, 5)
	f.takeTold()
	var waits []string
	for len(f.reads) > 0 {
		waits = append(waits, f.reads[0].Wait.String())
		f.answer(t, log)
	}
	require.Equal(t, []string{"0s", "1s", "2s", "3s", "4s", "5s"}, waits)
	f.push(longer, 4, 5)
	require.Equal(t, "4; 5", f.takeTold(), "5 was not held any more")

	// Progress resets the count of empty pages.
	longest := logtest.New("c", 8)
	f.push(longest, 8)
	f.answer(t, longer)
	f.push(longest, 6)
	f.answer(t, longest)
	require.Equal(t, "6; 7; 8", f.takeTold())
	require.Empty(t, f.reads)
}

func TestAPageThatIsRefusedIsGivenUp(t *testing.T) {
	log := logtest.New("c", 5)
	f := started(t, log)
	f.push(log, 3)
	f.reads[0].Done(nil, errRefused)
	f.reads = nil
	f.push(log, 1, 2)
	require.Equal(t, "1; 2", f.takeTold())
	f.push(log, 5)
	require.Len(t, f.reads, 1, "a new reason to ask")
}

func TestAnEventThatDoesNotVerifyIsReadAgain(t *testing.T) {
	log := logtest.New("c", 3)
	f := started(t, log)
	f.push(log, 1)
	f.pushEvent(log.Tampered(2))
	require.Equal(t, "1", f.takeTold())
	f.answer(t, log)
	require.Equal(t, "2; 3", f.takeTold())
	require.EqualValues(t, 1, f.Stats().ChainBreaks)

	// An event from history that does not verify is read again before a fork is suspected.
	log.Grow(2)
	f.push(log, 5)
	bad := log.Page(3, 100)
	bad.Events[0] = log.Tampered(4)
	f.reads[0].Done(bad, nil)
	f.reads = f.reads[1:]
	require.EqualValues(t, 128, f.reads[0].Limit)
	f.answer(t, log)
	require.Equal(t, "4; 5", f.takeTold())
}

func TestAConversationThatContradictsItselfStops(t *testing.T) {
	log := logtest.New("c", 4)
	f := started(t, log)
	f.push(log, 1)
	f.pushEvent(log.Tampered(2))
	bad := log.Page(1, 100)
	bad.Events[0] = log.Tampered(2)
	f.reads[0].Done(bad, nil)
	f.reads = f.reads[1:]
	require.Len(t, f.reads, 1, "it is asked whether the server went back")
	f.push(log, 2)
	require.Equal(t, "1", f.takeTold(), "nothing is taken meanwhile")
	f.answer(t, log)
	require.Contains(t, f.takeTold(), "broken: conversation c: seq 2")
	f.push(log, 2, 4)
	f.hide(log, 2, 3)
	f.beat(log)
	require.Empty(t, f.takeTold())
	require.Empty(t, f.reads)
}

func TestReceipts(t *testing.T) {
	log := logtest.New("c", 3)
	f := started(t, log)
	f.receipt(log, 5)
	f.receipt(log, 4)
	f.receipt(log, 5)
	f.receipt(log, 6)
	f.receipt(logtest.New("unknown", 1), 9)
	require.Equal(t, "receipt 5; receipt 6", f.takeTold())
}

func TestAClosedInboxAsksNothingMore(t *testing.T) {
	log := logtest.New("c", 300)
	f := started(t, log)
	f.push(log, 300)
	f.Close()
	f.reads[0].Done(nil, errRefused)
	require.Len(t, f.reads, 1)
	log.Back(100)
	f = started(t, logtest.New("c", 300))
	f.fork(log)
	f.Close()
	f.reads[0].Done(nil, errRefused)
	require.Len(t, f.reads, 1)
	require.Zero(t, f.reconnects)
}

func TestASeqThatNoLogCanReach(t *testing.T) {
	const high = 1 << 62
	for name, frameOf := range map[string]func(seq uint64) *clientv1.ServerFrame{
		"event": func(seq uint64) *clientv1.ServerFrame {
			return &clientv1.ServerFrame{Message: &clientv1.ServerFrame_Event{Event: &clientv1.Event{Seq: seq}}}
		},
		"outcome": func(seq uint64) *clientv1.ServerFrame {
			return &clientv1.ServerFrame{Message: &clientv1.ServerFrame_Outcome{Outcome: &conversationv1.Outcome{Seq: seq}}}
		},
		"page": func(seq uint64) *clientv1.ServerFrame {
			return &clientv1.ServerFrame{Message: &clientv1.ServerFrame_Page{Page: &clientv1.Page{Events: []*clientv1.Event{{Seq: 1}, {Seq: seq}}}}}
		},
		"head of a page": func(seq uint64) *clientv1.ServerFrame {
			return &clientv1.ServerFrame{Message: &clientv1.ServerFrame_Page{Page: &clientv1.Page{Head: seq}}}
		},
		"hidden stretch of a page": func(seq uint64) *clientv1.ServerFrame {
			return &clientv1.ServerFrame{Message: &clientv1.ServerFrame_Page{Page: &clientv1.Page{Hidden: []*conversationv1.Range{{First: 1, Last: seq}}}}}
		},
		"heartbeat": func(seq uint64) *clientv1.ServerFrame {
			return &clientv1.ServerFrame{Message: &clientv1.ServerFrame_Heartbeat{Heartbeat: &clientv1.Heartbeat{Heads: []*clientv1.Position{{Seq: seq}}}}}
		},
		"connected": func(seq uint64) *clientv1.ServerFrame {
			return &clientv1.ServerFrame{Message: &clientv1.ServerFrame_Connected{Connected: &clientv1.Connected{
				Conversations: []*clientv1.Conversation{{Head: 1}, {JoinedSeq: seq}},
			}}}
		},
		"list": func(seq uint64) *clientv1.ServerFrame {
			return &clientv1.ServerFrame{Message: &clientv1.ServerFrame_Conversations{Conversations: &clientv1.Conversations{
				Conversations: []*clientv1.Conversation{{Cursor: &conversationv1.Cursor{DeliveredSeq: seq}}},
			}}}
		},
		"attached": func(seq uint64) *clientv1.ServerFrame {
			return &clientv1.ServerFrame{Message: &clientv1.ServerFrame_Attached{Attached: &clientv1.Attached{
				Conversation: &clientv1.Conversation{Cursor: &conversationv1.Cursor{ReadSeq: seq}},
			}}}
		},
		"detached": func(seq uint64) *clientv1.ServerFrame {
			return &clientv1.ServerFrame{Message: &clientv1.ServerFrame_Detached{Detached: &clientv1.Detached{Last: seq}}}
		},
		"hidden": func(seq uint64) *clientv1.ServerFrame {
			return &clientv1.ServerFrame{Message: &clientv1.ServerFrame_Hidden{Hidden: &clientv1.Hidden{First: seq}}}
		},
		"forked": func(seq uint64) *clientv1.ServerFrame {
			return &clientv1.ServerFrame{Message: &clientv1.ServerFrame_Forked{Forked: &clientv1.Forked{Seq: seq}}}
		},
	} {
		require.NoError(t, inbox.CheckSeqs(frameOf(high-1)), name)
		require.ErrorIs(t, inbox.CheckSeqs(frameOf(high)), inbox.ErrSeq, name)
	}
	f := newFixture(clientv1.Start_START_HEAD)
	require.False(t, f.Restore("c", high, nil))
	require.True(t, f.Restore("c", high-1, nil))
}
