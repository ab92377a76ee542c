package delivery

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/services/delivery/deliverytest"
	"github.com/runnelhq/runnel/services/delivery/partition/takeover"
)

// rising checks that the positions of all events rise, as the store requires.
func rising(t *testing.T, f *deliverytest.History) {
	t.Helper()
	f.Mu.Lock()
	defer f.Mu.Unlock()
	for _, positions := range f.Positions {
		var last *historyv1.Position
		for _, at := range positions {
			require.True(t, last == nil || takeover.Before(
				&historyv1.Watermark{Epoch: last.GetEpoch(), Sequence: last.GetSequence()},
				&historyv1.Watermark{Epoch: at.GetEpoch(), Sequence: at.GetSequence()},
			), "%v after %v", at, last)
			last = at
		}
	}
}

// The first append of a partition begins an epoch. So does the first append in a replaced stream, and the first append
// after the stream was rewound. No other append begins an epoch. An append that contains only refusals begins an epoch in
// the same cases.
func TestEpochs(t *testing.T) {
	b := newBed(t, 1)
	w := b.startWorker(nil)
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g"))
	b.send(create)
	first := b.store.Mark()
	require.NotZero(t, first.GetEpoch())
	b.send(deliverytest.Command(create.GetConversationId(), "ann", 2, deliverytest.Text("x")))
	require.Equal(t, first.GetEpoch(), b.store.Mark().GetEpoch())

	b.loseStream()
	b.sendOnce(deliverytest.Command(create.GetConversationId(), "eve", 3, deliverytest.Text("refused")))
	replaced := b.store.Mark()
	require.Equal(t, first.GetEpoch()+1, replaced.GetEpoch())
	require.EqualValues(t, 3, b.send(deliverytest.Command(create.GetConversationId(), "ann", 4, deliverytest.Text("x"))).GetSeq())
	require.Equal(t, replaced.GetEpoch(), b.store.Mark().GetEpoch(), "one epoch for one stream")

	w.stop()
	mark := b.store.Mark()
	mark.Sequence += 10
	mark.TimeNs++
	b.store.SetMark(mark)
	b.startWorker(nil)
	require.EqualValues(t, 4, b.send(deliverytest.Command(create.GetConversationId(), "ann", 5, deliverytest.Text("x"))).GetSeq())
	require.Equal(t, replaced.GetEpoch()+1, b.store.Mark().GetEpoch())
	b.store.Verify(t)
	rising(t, b.store)
}

// The database goes back to a state before commits that it acknowledged to the owner. The owner raises the epoch, and
// commits the lost commands from the stream again.
func TestDatabaseGoesBack(t *testing.T) {
	b := newBed(t, 1)
	b.startWorker(nil)
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g"))
	id := create.GetConversationId()
	b.send(create)
	b.store.Mu.Lock()
	backup := b.store.Clone()
	b.store.Mu.Unlock()
	for i := range 3 {
		b.send(deliverytest.Command(id, "ann", 10+i, deliverytest.Text("x")))
	}
	before := b.store.Mark()
	b.store.Mu.Lock()
	b.store.Watermarks, b.store.Logs, b.store.Keys, b.store.States = backup.Watermarks, backup.Logs, backup.Keys, backup.States
	b.store.Mu.Unlock()
	require.EqualValues(t, 5, b.send(deliverytest.Command(id, "ann", 20, deliverytest.Text("y"))).GetSeq())
	require.Greater(t, b.store.Mark().GetEpoch(), before.GetEpoch())
	b.store.Verify(t)
	require.Len(t, b.store.Logs[id], 5)
}

// A stream was recreated and contains old messages. The owner does not carry out the old messages: refused commands stay
// refused.
func TestReplacedStreamWithOldMessages(t *testing.T) {
	b := newBed(t, 1)
	w := b.startWorker(nil)
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g"))
	id := create.GetConversationId()
	b.send(create)
	b.send(deliverytest.Command(id, "eve", 2, deliverytest.Text("refused")))
	b.send(deliverytest.Command(id, "ann", 3, deliverytest.Add("eve")))
	w.stop()
	mark := b.store.Mark()
	mark.Stream = "another"
	b.store.SetMark(mark)
	b.store.Mu.Lock()
	clear(b.store.Refusals) // the result must not depend on remembered refusals
	b.store.Mu.Unlock()
	b.forget()
	w = b.startWorker(nil)
	require.EqualValues(t, 3, b.send(deliverytest.Command(id, "ann", 4, deliverytest.Text("after it"))).GetSeq())
	require.Equal(t, 1, w.count("stream_replaced_total"))
	require.Equal(t, mark.GetEpoch()+1, b.store.Mark().GetEpoch())
	b.store.Verify(t)
	rising(t, b.store)
}

// The broker's time says that a message is older than the watermark, and its admission time says that it is newer. The
// owner does not skip the message: the partition stops.
func TestClocksThatDisagreeStopThePartition(t *testing.T) {
	t.Parallel() // it mostly waits
	b := newBed(t, 1)
	w := b.startWorker(nil)
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g"))
	b.send(create)
	w.stop()
	fresh := deliverytest.Command(create.GetConversationId(), "ann", 2, deliverytest.Text("new, by the gateway's clock"))
	fresh.AdmittedMs = time.Now().Add(time.Hour).UnixMilli()
	b.putCommand(fresh)
	mark := b.store.Mark()
	mark.Stream, mark.TimeNs = "another", time.Now().UnixNano()
	b.store.SetMark(mark)
	// A message that is new by both times must not be committed before the owner has checked the earlier message.
	b.putCommand(deliverytest.Command(create.GetConversationId(), "ann", 3, deliverytest.Text("after it")))
	w = b.startWorker(nil)
	b.eventually("the alarm", func() bool { return w.count("partition_stopped") == 1 })
	require.Contains(t, w.state(0), "message 2")
	require.Contains(t, w.state(0), "delete the stream")
	require.Equal(t, mark.GetSequence(), b.store.Mark().GetSequence())
	b.requireStaysStopped(w, "takeovers_total")

	require.NoError(t, b.js.DeleteStream(t.Context(), broker.StreamName(0)))
	b.eventually("the alarm ends", func() bool { return w.count("partition_stopped") == 0 && w.state(0) == "running" })
	require.EqualValues(t, 2, b.send(deliverytest.Command(create.GetConversationId(), "ann", 4, deliverytest.Text("after it"))).GetSeq())
}

// A replaced stream that begins above sequence 1 with new messages lacks the messages before its first one.
func TestReplacedStreamWithAHole(t *testing.T) {
	b := newBed(t, 1)
	w := b.startWorker(nil)
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g"))
	b.send(create)
	w.stop()
	require.NoError(t, b.js.DeleteStream(t.Context(), broker.StreamName(0)))
	_, err := b.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: broker.StreamName(0), Subjects: []string{broker.CommandSubject(0)}, FirstSeq: 50})
	require.NoError(t, err)
	b.putCommand(deliverytest.Command(create.GetConversationId(), "ann", 2, deliverytest.Text("x")))
	w = b.startWorker(nil)
	b.eventually("the alarm", func() bool { return w.count("partition_stopped") == 1 })
	require.Contains(t, w.state(0), "messages 1 to 49 are missing")
	require.Contains(t, w.state(0), "delete the stream", "no sequence of the new stream can be given up")
}
