package inbox_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/client/internal/logtest"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
)

// pushed returns an inbox that has received the whole log.
func pushed(t *testing.T, log *logtest.Log) *fixture {
	t.Helper()
	f := started(t, log)
	for seq := range log.Head() {
		f.push(log, seq+1)
	}
	f.takeTold()
	return f
}

func TestAForkRewindsAndReconnects(t *testing.T) {
	log := logtest.New("c", 9)
	f := pushed(t, log)
	f.receipt(log, 7)
	log.Back(5)
	log.Grow(3)
	f.fork(log)
	require.Zero(t, f.reconnects, "first it must know how far it has the conversation")
	f.push(log, 6)
	f.beat(log)
	f.hide(log, 8, 20)
	f.answerAll(t, log)
	require.Equal(t, "receipt 7; c forked 9 to 5, hash known: true", f.takeTold())
	require.NotZero(t, f.reconnects)
	require.EqualValues(t, 1, f.Stats().Forks)
	f.receipt(log, 1)
	require.Equal(t, "receipt 1", f.takeTold(), "receipts start again")

	f.Disconnected()
	_, positions := f.connect(&clientv1.Connected{Conversations: []*clientv1.Conversation{info(log)}})
	require.EqualValues(t, 5, positions[0].GetSeq())
	f.push(log, 6, 7, 8)
	require.Equal(t, "6; 7; 8", f.takeTold())
}

func TestWhatOnlyLooksForkedGoesOn(t *testing.T) {
	log := logtest.New("c", 9)
	f := pushed(t, log)
	log.Grow(2)
	f.fork(log)
	f.fork(log)
	require.Len(t, f.reads, 1, "it is asked once")
	f.push(log, 10)
	f.answerAll(t, log)
	require.Equal(t, "10; 11", f.takeTold(), "what was announced meanwhile is read")
	require.Equal(t, 1, f.reconnects, "nothing more of it is pushed on this connection")
	require.Zero(t, f.Stats().Forks)
}

func TestSignsOfAFork(t *testing.T) {
	for name, sign := range map[string]func(f *fixture, log *logtest.Log){
		"another event in place of one that it has": func(f *fixture, log *logtest.Log) { f.push(log, 7) },
		"a head below the position": func(f *fixture, log *logtest.Log) {
			f.Disconnected()
			f.connect(&clientv1.Connected{Conversations: []*clientv1.Conversation{info(log)}})
		},
		"an event that does not continue the log": func(f *fixture, log *logtest.Log) {
			log.Grow(3)
			f.push(log, 10)
			read := f.reads[0]
			f.reads = f.reads[1:]
			read.Done(log.Page(read.After(), 128), nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			log := logtest.New("c", 9)
			f := pushed(t, log)
			log.Back(5)
			log.Grow(2)
			sign(f, log)
			f.answerAll(t, log)
			require.Contains(t, f.takeTold(), "c forked 9 to 5, hash known: true")
		})
	}
}

func TestACommittedCommandThatIsGoneIsAFork(t *testing.T) {
	log := logtest.New("c", 9)
	f := pushed(t, log)
	f.Disconnected()
	f.newest["c"] = 10
	f.connect(&clientv1.Connected{Conversations: []*clientv1.Conversation{info(log)}})
	f.answerAll(t, log)
	require.Equal(t, "c forked 9 to 9, hash known: true", f.takeTold())
}

// The gateway's description of a conversation may be older than the outcome of a command.
func TestAnOutcomeThatOvertakesItsConversationIsNoFork(t *testing.T) {
	log := logtest.New("c", 9)
	f := pushed(t, log)
	f.newest["c"] = 10
	f.attach(info(log))
	require.Empty(t, f.reads)

	f = newFixture(clientv1.Start_START_HEAD)
	f.newest["c"] = 10
	f.connect(&clientv1.Connected{Conversations: []*clientv1.Conversation{{ConversationId: "a"}}, More: true})
	f.lists[0].done(&clientv1.Conversations{Conversations: []*clientv1.Conversation{info(log)}}, nil)
	require.Empty(t, f.reads)

	f = newFixture(clientv1.Start_START_HEAD)
	f.newest["c"] = 10
	f.connect(&clientv1.Connected{})
	f.attach(info(log))
	require.Len(t, f.reads, 1, "but one that was joined just now cannot lack what the user committed in it")
}

func TestASearchThatIsRefusedEnds(t *testing.T) {
	log := logtest.New("c", 9)
	f := pushed(t, log)
	f.fork(log)
	read := f.reads[0]
	f.reads = nil
	read.Done(nil, errRefused)
	log.Grow(1)
	f.push(log, 10)
	require.Equal(t, "10", f.takeTold())
}

func TestOnlyAFewConversationsAreSearchedAtOnce(t *testing.T) {
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
		f.push(log, 1, 2, 3)
	}
	f.takeTold()
	for _, log := range logs {
		f.fork(log)
	}
	require.Len(t, f.reads, 4)
	f.answer(t, logs[0])
	require.Zero(t, f.reconnects)
	f.answerAll(t, logs...)
	require.NotZero(t, f.reconnects)
}

func TestAConversationThatIsLeftWhileItIsSearched(t *testing.T) {
	log := logtest.New("c", 9)
	f := pushed(t, log)
	f.fork(log)
	f.detach(log, 9)
	require.Equal(t, "c detached at 9", f.takeTold())
	f.answerAll(t, log)
	require.NotZero(t, f.reconnects)
	require.Empty(t, f.takeTold())
}

func TestAConversationThatTheServerLost(t *testing.T) {
	log := logtest.New("c", 9)
	f := pushed(t, log)
	f.created["c"] = true
	f.detach(log, 0)
	require.Equal(t, "c forked 9 to 0, hash known: false; c detached at 0", f.takeTold(), "its creator creates it again")
	require.False(t, f.lost["c"])

	f = pushed(t, log)
	f.detach(log, 0)
	require.Equal(t, "c detached at 0", f.takeTold())
	require.True(t, f.lost["c"])
	again := logtest.New("c", 2)
	f.attach(info(again))
	require.Equal(t, "c begins after 0; c attached; c forked 0 to 0, hash known: false", f.takeTold(), "its members send theirs again")
	require.NotZero(t, f.reconnects)
}
