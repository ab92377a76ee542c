package inbox_test

import (
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/client/internal/logtest"
	"github.com/runnelhq/runnel/pkg/protocol"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

func TestWhereConversationsBegin(t *testing.T) {
	for start, want := range map[clientv1.Start]string{
		clientv1.Start_START_HEAD:      "c begins after 9",
		clientv1.Start_START_FIRST:     "c begins after 2",
		clientv1.Start_START_DELIVERED: "c begins after 5",
	} {
		f := newFixture(start)
		said, positions := f.connect(&clientv1.Connected{Conversations: []*clientv1.Conversation{
			{ConversationId: "c", Head: 9, JoinedSeq: 3, Cursor: &conversationv1.Cursor{DeliveredSeq: 5}},
		}})
		require.Equal(t, start, said)
		require.Empty(t, positions)
		require.Equal(t, want+"; c attached", f.takeTold())
	}
}

func TestAConversationThatIsJoinedBeginsWithTheJoining(t *testing.T) {
	log := logtest.New("c", 9)
	f := newFixture(clientv1.Start_START_HEAD)
	f.connect(&clientv1.Connected{})
	f.attach(&clientv1.Conversation{ConversationId: "c", Head: 7, JoinedSeq: 6})
	require.Equal(t, "c begins after 5; c attached", f.takeTold())
	require.Empty(t, f.reads, "what came since is on its way")
	f.push(log, 6, 7)
	f.attach(&clientv1.Conversation{ConversationId: "c", Head: 7, JoinedSeq: 6})
	require.Equal(t, "6; 7", f.takeTold(), "it is attached once")

	// Events of a conversation that was joined while the client was offline are not missed either.
	f.Disconnected()
	start, _ := f.connect(&clientv1.Connected{Conversations: []*clientv1.Conversation{
		{ConversationId: "c", Head: 7, JoinedSeq: 6}, {ConversationId: "d", Head: 7, JoinedSeq: 3},
	}})
	require.Equal(t, clientv1.Start_START_FIRST, start)
	require.Equal(t, "d begins after 2; d attached", f.takeTold())
}

func TestANextConnectionResumes(t *testing.T) {
	log := logtest.New("c", 9)
	f := started(t, log)
	f.push(log, 1, 2, 3)
	f.Disconnected()
	_, positions := f.connect(&clientv1.Connected{Conversations: []*clientv1.Conversation{info(log)}})
	require.Len(t, positions, 1)
	require.EqualValues(t, 3, positions[0].GetSeq())
	require.Equal(t, log.Hash(3)[:8], positions[0].GetHash())
	require.Empty(t, f.reads, "the gateway pushes what comes after 3")
}

// crowd makes an inbox with two conversations more than fit into a connect frame. All conversations have three events, of
// which the client has two. It returns the ids of the two conversations that the frame did not name.
func crowd(t *testing.T) (f *fixture, logs map[string]*logtest.Log, unnamed []string) {
	t.Helper()
	f, logs = newFixture(clientv1.Start_START_FIRST), map[string]*logtest.Log{}
	for i := range protocol.MaxResumePositions + 2 {
		log := logtest.New(strconv.Itoa(i), 3)
		logs[log.ID] = log
		f.Restore(log.ID, 2, log.Hash(2))
	}
	start, positions := f.Connecting()
	require.Equal(t, clientv1.Start_START_HEAD, start)
	require.Len(t, positions, protocol.MaxResumePositions)
	named := map[string]bool{}
	for _, position := range positions {
		named[position.GetConversationId()] = true
	}
	for id := range logs {
		if !named[id] {
			unnamed = append(unnamed, id)
		}
	}
	return f, logs, unnamed
}

func TestConversationsForWhichAConnectFrameHasNoRoomAreRead(t *testing.T) {
	f, logs, unnamed := crowd(t)
	connected := &clientv1.Connected{}
	for _, log := range logs {
		connected.Conversations = append(connected.Conversations, info(log))
	}
	f.Connected(connected)
	require.Len(t, f.reads, 2, "the others are pushed")
	require.ElementsMatch(t, unnamed, []string{f.reads[0].ConversationID, f.reads[1].ConversationID})
	f.answerAll(t, logs[unnamed[0]], logs[unnamed[1]])
	for _, id := range unnamed {
		seq, _ := f.Position(id)
		require.EqualValues(t, 3, seq)
	}
	require.Zero(t, f.reconnects, "all of them are the user's")
}

func TestAMembershipThatEndedUnnamedIsNamedByTheNextConnection(t *testing.T) {
	f, logs, unnamed := crowd(t)
	// The user has left a conversation that was not named and one that was named. The gateway reports only the latter.
	var left *logtest.Log
	connected := &clientv1.Connected{More: true}
	for id, log := range logs {
		if left == nil && !slices.Contains(unnamed, id) {
			left = log
		} else if id != unnamed[0] {
			connected.Conversations = append(connected.Conversations, info(log))
		}
	}
	f.Connected(connected)
	require.Zero(t, f.reconnects, "there may be more to be listed")
	f.lists[0].done(&clientv1.Conversations{}, nil)
	require.Zero(t, f.reconnects, "the gateway has not told how the other one ended")
	f.detach(left, 2)
	require.Equal(t, 1, f.reconnects)
	f.Disconnected()
	_, positions := f.Connecting()
	require.Equal(t, unnamed[0], positions[0].GetConversationId())

	// A failed attempt to connect changes nothing.
	_, positions = f.Connecting()
	require.Equal(t, unnamed[0], positions[0].GetConversationId())
	f.Connected(&clientv1.Connected{Conversations: append(connected.GetConversations(), info(logs[unnamed[0]]))})
	require.Equal(t, 1, f.reconnects)
}

func TestConversationsBeyondTheFirstPageAreListed(t *testing.T) {
	log := logtest.New("c", 9)
	f := newFixture(clientv1.Start_START_HEAD)
	f.connect(&clientv1.Connected{Conversations: []*clientv1.Conversation{{ConversationId: "a"}}, More: true})
	require.Len(t, f.lists, 1)
	require.Equal(t, "a", f.lists[0].after)
	f.takeTold()
	// The client requests the list again as long as the connection lasts.
	f.lists[0].done(nil, errRefused)
	f.lists[1].done(nil, errRefused)
	require.Equal(t, []string{"0s", "1s", "2s"}, []string{f.lists[0].wait.String(), f.lists[1].wait.String(), f.lists[2].wait.String()})
	f.push(log, 8, 9) // pushed before it was listed
	require.EqualValues(t, 2, f.Stats().StraysDropped)
	f.lists[2].done(&clientv1.Conversations{Conversations: []*clientv1.Conversation{info(log)}, More: true}, nil)
	require.Equal(t, "c begins after 7; c attached", f.takeTold(), "it begins where it was at connect")
	require.Equal(t, "c", f.lists[3].after)
	f.answerAll(t, log)
	require.Equal(t, "8; 9", f.takeTold())
	f.Disconnected()
	f.lists[3].done(nil, errRefused)
	require.Len(t, f.lists, 4, "it ends with the connection")

	// The next connection starts over. Unknown conversations count as new only after all were listed.
	start, _ := f.connect(&clientv1.Connected{Conversations: []*clientv1.Conversation{{ConversationId: "a"}}, More: true})
	require.Equal(t, clientv1.Start_START_HEAD, start)
	f.lists[4].done(&clientv1.Conversations{}, nil)
	f.Disconnected()
	start, _ = f.connect(&clientv1.Connected{})
	require.Equal(t, clientv1.Start_START_FIRST, start)
	f.pushEvent(logtest.New("stranger", 1).Event(1))
	require.EqualValues(t, 3, f.Stats().StraysDropped)
}

func TestAListEnds(t *testing.T) {
	f := newFixture(clientv1.Start_START_HEAD)
	f.connect(&clientv1.Connected{More: true})
	require.Empty(t, f.lists, "there is nothing to continue after")
	f.Disconnected()
	f.connect(&clientv1.Connected{Conversations: []*clientv1.Conversation{{ConversationId: "a"}}, More: true})
	f.lists[0].done(&clientv1.Conversations{Conversations: []*clientv1.Conversation{{ConversationId: "b"}}}, nil)
	require.Len(t, f.lists, 1)
	f.Disconnected()
	f.connect(&clientv1.Connected{Conversations: []*clientv1.Conversation{{ConversationId: "a"}}, More: true})
	f.lists[1].done(&clientv1.Conversations{More: true}, nil)
	require.Len(t, f.lists, 2, "a page without anything is the last one, whatever it says")
}

func TestAnOldWordOfAMembershipDoesNotProlongIt(t *testing.T) {
	log := logtest.New("c", 5)
	f := started(t, log)
	f.push(log, 1)
	f.detach(log, 3)
	f.attach(&clientv1.Conversation{ConversationId: "c", Head: 3, JoinedSeq: 3})
	f.push(log, 2, 3)
	require.Equal(t, "1; 2; 3; c detached at 3", f.takeTold())
}

func TestAMembershipEndsWithItsLastEvent(t *testing.T) {
	log := logtest.New("c", 5)
	f := started(t, log)
	f.push(log, 1)
	f.detach(log, 3)
	require.Equal(t, "1", f.takeTold())
	f.answer(t, log)
	require.Equal(t, "2; 3; 4; 5; c detached at 3", f.takeTold())
	_, known := f.Position("c")
	require.False(t, known)
	f.detach(log, 3)
	require.Empty(t, f.takeTold())

	f = started(t, log)
	f.push(log, 1, 2, 3)
	f.detach(log, 3)
	require.Equal(t, "1; 2; 3; c detached at 3", f.takeTold())
	require.Empty(t, f.acks(), "nothing is acknowledged any more")
}

func TestAMembershipEndsWhenItsEventsAreNotThere(t *testing.T) {
	log := logtest.New("c", 5)
	f := started(t, log)
	f.detach(log, 3)
	f.reads[0].Done(nil, errRefused)
	require.Equal(t, "c detached at 3", f.takeTold())
}

func TestBeingAddedAgainWhileBehindGoesOn(t *testing.T) {
	log := logtest.New("c", 7)
	f := started(t, log)
	f.push(log, 1)
	f.detach(log, 3)
	f.attach(&clientv1.Conversation{ConversationId: "c", Head: 7, JoinedSeq: 5})
	f.answerAll(t, log)
	require.Equal(t, "1; 2; 3; 4; 5; 6; 7", f.takeTold())
}

func TestAHeartbeatShowsWhatIsMissing(t *testing.T) {
	log := logtest.New("c", 3)
	f := started(t, log)
	f.push(log, 1, 2, 3)
	f.beat(log)
	require.Empty(t, f.reads)
	log.Grow(1)
	f.beat(log, logtest.New("unknown", 4))
	f.answerAll(t, log)
	require.Equal(t, "1; 2; 3; 4", f.takeTold())
}

func TestABacklogIsReadWhenItDoesNotMove(t *testing.T) {
	log := logtest.New("c", 9)
	f := started(t, log)
	f.push(log, 1, 2)
	f.beat(log)
	require.Empty(t, f.reads, "it is on its way")
	f.push(log, 3)
	log.Grow(1)
	f.beat(log)
	require.Empty(t, f.reads, "it moves")
	f.beat(log)
	require.Len(t, f.reads, 1, "it did not move between two heartbeats")
	f.beat(log)
	require.Len(t, f.reads, 1, "it is read already")
	f.answerAll(t, log)
	require.Equal(t, "1; 2; 3; 4; 5; 6; 7; 8; 9; 10", f.takeTold())
}
