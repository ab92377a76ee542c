package inbox_test

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/client/internal/logtest"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

func TestAcknowledgementsAreCollected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := logtest.New("c", 200)
		f := started(t, log)
		require.True(t, f.AckDue().IsZero())
		f.push(log, 1)
		due := time.Now().Add(ackDelay)
		require.Equal(t, due, f.AckDue())
		time.Sleep(ackDelay / 2)
		f.push(log, 2)
		require.Equal(t, due, f.AckDue())
		require.Equal(t, 1, f.woken)
		require.Equal(t, []string{"c 2"}, f.acks())
		require.True(t, f.AckDue().IsZero())

		// An acknowledgement of many events is sent at once.
		for seq := range uint64(63) {
			f.push(log, seq+3)
		}
		require.Equal(t, time.Now().Add(ackDelay), f.AckDue())
		f.push(log, 66)
		require.Equal(t, time.Now(), f.AckDue())
		require.Equal(t, []string{"c 66"}, f.acks())
		require.EqualValues(t, 2, f.Stats().Acks)
	})
}

func TestWhatTheProgramWasNotToldOfIsNotAcknowledged(t *testing.T) {
	log := logtest.New("c", 5)
	f := started(t, log)
	f.slow = true
	f.push(log, 1, 2)
	require.True(t, f.AckDue().IsZero())
	f.handAll()
	f.push(log, 3)
	require.Equal(t, []string{"c 2"}, f.acks())

	// An undone position is not acknowledged either: the callback of the old branch moves no position.
	f.push(log, 4, 5)
	log.Back(1)
	f.fork(log)
	f.answerAll(t, log)
	f.queued, f.slow = f.queued[:len(f.queued)-1], false // all positions except the fork's
	f.handAll()
	require.Empty(t, f.acks())
}

func TestAcknowledgementsWaitForAConnection(t *testing.T) {
	log := logtest.New("c", 5)
	f := started(t, log)
	f.slow = true
	f.push(log, 1)
	f.Disconnected()
	f.handAll()
	require.True(t, f.AckDue().IsZero())
	f.connect(&clientv1.Connected{})
	require.False(t, f.AckDue().IsZero())
	require.Equal(t, []string{"c 1"}, f.acks())
}

func TestAcknowledgementsThatWereLostAreRepeated(t *testing.T) {
	log := logtest.New("c", 3)
	f := started(t, log)
	f.push(log, 1, 2, 3)
	f.MarkRead("c", 2)
	require.Equal(t, []string{"c 3 read 2"}, f.acks())
	f.Disconnected()
	behind := info(log)
	behind.Cursor = &conversationv1.Cursor{DeliveredSeq: 1, ReadSeq: 1}
	f.connect(&clientv1.Connected{Conversations: []*clientv1.Conversation{behind}})
	require.Equal(t, []string{"c 3 read 2"}, f.acks())
	f.Disconnected()
	behind.Cursor = &conversationv1.Cursor{DeliveredSeq: 3, ReadSeq: 2}
	f.connect(&clientv1.Connected{Conversations: []*clientv1.Conversation{behind}})
	require.True(t, f.AckDue().IsZero(), "nothing was lost")
	f.push(log, 3)
	require.Equal(t, []string{"c 3"}, f.acks(), "a repeat means that the gateway does not know")
}

func TestReadingOnlyMovesForwardAndNotAhead(t *testing.T) {
	log := logtest.New("c", 9)
	f := started(t, log)
	f.push(log, 1, 2, 3)
	f.MarkRead("unknown", 1)
	f.MarkRead("c", 2)
	f.MarkRead("c", 1)
	require.Equal(t, []string{"c 3 read 2"}, f.acks())
	f.MarkRead("c", 2)
	require.True(t, f.AckDue().IsZero())
	f.MarkRead("c", 9)
	require.Equal(t, []string{"c 3 read 3"}, f.acks())
}

func TestAnAcknowledgementHasALimitedNumberOfPositions(t *testing.T) {
	f := newFixture(clientv1.Start_START_FIRST)
	f.connect(&clientv1.Connected{})
	for i := range 201 {
		log := logtest.New(strconv.Itoa(i), 1)
		f.attach(info(log))
		f.push(log, 1)
	}
	require.Len(t, f.acks(), 200)
	require.False(t, f.AckDue().IsZero(), "the rest is still due")
	require.Len(t, f.acks(), 1)
	require.True(t, f.AckDue().IsZero())
}
