package delivery

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/delivery/deliverytest"
	"github.com/runnelhq/runnel/services/delivery/wake"
)

// A command becomes an event in the store, a result for its sender, and a live event for the other members.
func TestCommandIsCommittedAndTold(t *testing.T) {
	b := newBed(t, 1)
	w := b.startWorker(nil)
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g", "bob"))
	outcome := b.send(create)
	require.Nil(t, outcome.GetError())
	require.EqualValues(t, 1, outcome.GetSeq())
	id := create.GetConversationId()
	for i := range 20 {
		outcome = b.send(deliverytest.Command(id, "ann", 10+i, deliverytest.Text(fmt.Sprint("message ", i))))
		require.EqualValues(t, 2+i, outcome.GetSeq())
		require.False(t, outcome.GetRepeated())
	}
	b.awaitEvent(id, 21)
	b.await("the members are told to gateways", func() bool {
		return len(b.joined) == 1 && b.joined[0].GetSeq() == 1 && len(b.joined[0].GetUserIds()) == 2
	})
	refused := b.send(deliverytest.Command(id, "eve", 99, deliverytest.Text("hi")))
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND, refused.GetError().GetCode())
	b.store.Verify(t)
	require.EqualValues(t, 22, b.store.Mark().GetSequence())
	require.Equal(t, 22, w.count("watermark"))
	require.Equal(t, "running", w.state(0))
	require.Equal(t, 22, w.count("commands_total"))
}

// A repeated command gets the first outcome, after any time and from any worker.
func TestRepeatGetsTheFirstOutcome(t *testing.T) {
	b := newBed(t, 1)
	w := b.startWorker(nil)
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g", "bob"))
	message := deliverytest.Command(create.GetConversationId(), "ann", 2, deliverytest.Text("once"))
	require.EqualValues(t, 1, b.send(create).GetSeq())
	require.EqualValues(t, 2, b.send(message).GetSeq())
	for range 2 {
		b.forget()
		b.putCommand(create)
		b.putCommand(message)
		// A new owner also publishes the first outcomes again. The test therefore waits for outcomes marked as repeated.
		for c, seq := range map[*brokerv1.Command]uint64{create: 1, message: 2} {
			b.await("the first outcome again", func() bool {
				return slices.ContainsFunc(b.results, func(r *brokerv1.Result) bool {
					return r.GetOutcome().GetCommandId() == c.GetCommandId() && r.GetOutcome().GetRepeated() && r.GetOutcome().GetSeq() == seq
				})
			})
		}
		w.stop()
		w = b.startWorker(nil)
	}
	b.forget()
	conflicting := deliverytest.Command(create.GetConversationId(), "ann", 2, deliverytest.Text("something else"))
	b.putCommand(conflicting)
	b.await("the conflict is told", func() bool {
		for _, r := range b.results {
			if r.GetOutcome().GetError().GetCode() == conversationv1.ErrorCode_ERROR_CODE_IDEMPOTENCY_CONFLICT {
				return true
			}
		}
		return false
	})
	b.store.Verify(t)
}

// Many waiting commands are committed in batches, in order.
func TestCommandsGatherWhileAnAppendIsInFlight(t *testing.T) {
	b := newBed(t, 1)
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g"))
	gate := make(chan struct{})
	open := sync.OnceFunc(func() { close(gate) })
	b.store.Fail(func(in *historyv1.AppendRequest) error { <-gate; return nil }, nil)
	b.startWorker(func(c *Config, _ *Deps) { c.AppendTimeout = patience })
	t.Cleanup(open) // before the worker is stopped
	b.putCommand(create)
	for i := range 1000 {
		b.putCommand(deliverytest.Command(create.GetConversationId(), "ann", 10+i, deliverytest.Text(strconv.Itoa(i))))
	}
	open()
	b.awaitEvent(create.GetConversationId(), 1001)
	b.store.Verify(t)
	b.store.Mu.Lock()
	defer b.store.Mu.Unlock()
	for i, event := range b.store.Logs[create.GetConversationId()][1:] {
		require.Equal(t, strconv.Itoa(i), deliverytest.Decoded(event.GetBody()).GetMessage().GetText())
	}
	require.Less(t, b.store.Appends, 100, "commands must share appends")
}

// No result or event is published before its commit.
func TestNothingIsToldBeforeTheCommit(t *testing.T) {
	b := newBed(t, 1)
	entered, gate := wake.NewSignal(), make(chan struct{})
	open := sync.OnceFunc(func() { close(gate) })
	b.store.Fail(func(*historyv1.AppendRequest) error { entered.Raise(); <-gate; return nil }, nil)
	b.startWorker(func(c *Config, _ *Deps) { c.AppendTimeout = patience })
	t.Cleanup(open) // before the worker is stopped
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g"))
	b.putCommand(create)
	b.putCommand(deliverytest.Command(create.GetConversationId(), "eve", 2, deliverytest.Text("refused")))
	<-entered
	require.NoError(t, b.nc.Flush())
	b.mu.Lock()
	require.Empty(t, b.results)
	require.Empty(t, b.events)
	b.mu.Unlock()
	open()
	require.EqualValues(t, 1, b.resultOf(create).GetSeq())
}

// While the store is unavailable, commands wait. When it is available again, they are committed.
func TestStoreAway(t *testing.T) {
	b := newBed(t, 1)
	left := 6
	b.store.Fail(func(*historyv1.AppendRequest) error {
		if left--; left >= 0 {
			return status.Error(codes.Unavailable, "away")
		}
		return nil
	}, nil)
	b.startWorker(nil)
	require.EqualValues(t, 1, b.send(deliverytest.Command("", "ann", 1, deliverytest.Group("g"))).GetSeq())
	b.store.Verify(t)
}

// An append is committed, but its answer is lost.
func TestUnknownOutcomeOfAnAppend(t *testing.T) {
	b := newBed(t, 1)
	var once sync.Once
	b.store.Fail(nil, func(*historyv1.AppendRequest) (err error) {
		once.Do(func() { err = status.Error(codes.DeadlineExceeded, "lost") })
		return err
	})
	w := b.startWorker(nil)
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g"))
	outcome := b.send(create)
	require.EqualValues(t, 1, outcome.GetSeq())
	require.False(t, outcome.GetRepeated(), "it is the first outcome, told by the next session")
	b.awaitEvent(create.GetConversationId(), 1)
	require.Equal(t, 2, w.count("takeovers_total"))
	require.Zero(t, w.count("superseded_total"), "nobody else commits: this worker moved the watermark itself")
	b.store.Verify(t)
}

// Two workers both believe that they own a partition. The store rejects the appends of one worker, and every command is
// committed once.
func TestZombie(t *testing.T) {
	b := newBed(t, 1)
	a := b.startWorker(nil)
	other := b.startWorker(func(_ *Config, d *Deps) {
		d.History = &split{History: b.store, leases: deliverytest.NewLeases(1)}
	})
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g"))
	require.EqualValues(t, 1, b.send(create).GetSeq())
	for i := range 100 {
		require.EqualValues(t, 2+i, b.send(deliverytest.Command(create.GetConversationId(), "ann", 10+i, deliverytest.Text("x"))).GetSeq())
	}
	b.eventually("one of them was refused", func() bool { return a.count("superseded_total")+other.count("superseded_total") > 0 })
	b.store.Verify(t)
	require.EqualValues(t, 101, b.store.Mark().GetSequence())
}

// Uncommitted messages are missing from the stream. Their partition stops, and other partitions continue.
func TestHoleStopsThePartition(t *testing.T) {
	b := newBed(t, 2)
	for p := range ids.Partition(2) { // without deny_delete, so that the test can delete a message
		_, err := b.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: broker.StreamName(p), Subjects: []string{broker.CommandSubject(p)}})
		require.NoError(t, err)
	}
	w := b.startWorker(nil)
	creates := make([]*brokerv1.Command, 2)
	for n := 1; creates[0] == nil || creates[1] == nil; n++ {
		c := deliverytest.Command("", "ann", n, deliverytest.Group("g"))
		creates[conversation.Partition(ids.Conversation(c.GetConversationId()), 2)] = c
	}
	for _, c := range creates {
		require.EqualValues(t, 1, b.send(c).GetSeq())
	}
	w.stop()
	holed := b.putCommand(deliverytest.Command(creates[0].GetConversationId(), "ann", 50, deliverytest.Text("lost")))
	b.putCommand(deliverytest.Command(creates[0].GetConversationId(), "ann", 51, deliverytest.Text("after it")))
	stream, err := b.js.Stream(t.Context(), broker.StreamName(0))
	require.NoError(t, err)
	require.NoError(t, stream.DeleteMsg(t.Context(), holed))
	w = b.startWorker(nil)
	require.EqualValues(t, 2, b.send(deliverytest.Command(creates[1].GetConversationId(), "ann", 52, deliverytest.Text("the other partition"))).GetSeq())
	b.eventually("the alarm", func() bool { return w.count("partition_stopped") == 1 })
	require.True(t, strings.HasPrefix(w.state(0), "stopped: "), w.state(0))
	require.Contains(t, w.state(0), fmt.Sprint("message ", holed))
	require.Contains(t, w.state(0), fmt.Sprintf("runnel-history accept-loss 0 --through %d", holed))
	require.Equal(t, holed-1, b.store.Mark().GetSequence())
}

// A message is deleted ahead of a running reader.
func TestHoleWhileReading(t *testing.T) {
	b := newBed(t, 1)
	_, err := b.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: broker.StreamName(0), Subjects: []string{broker.CommandSubject(0)}})
	require.NoError(t, err)
	entered, gate := wake.NewSignal(), make(chan struct{})
	open := sync.OnceFunc(func() { close(gate) })
	b.store.Fail(func(*historyv1.AppendRequest) error { entered.Raise(); <-gate; return nil }, nil)
	w := b.startWorker(func(c *Config, _ *Deps) { c.AppendTimeout, c.MaxBatch = patience, 1 })
	t.Cleanup(open)                  // before the worker is stopped
	payload := make([]byte, 100<<10) // large enough that the reader has not requested all messages
	for range 60 {
		b.put(payload)
	}
	<-entered
	stream, err := b.js.Stream(t.Context(), broker.StreamName(0))
	require.NoError(t, err)
	require.NoError(t, stream.DeleteMsg(t.Context(), 55))
	open()
	b.eventually("the alarm", func() bool { return w.count("partition_stopped") == 1 })
	require.EqualValues(t, 54, b.store.Mark().GetSequence())
}

// The stream is deleted while the worker runs, and recreated. The watermark of the old stream does not hide new commands.
func TestReplacedStream(t *testing.T) {
	b := newBed(t, 1)
	w := b.startWorker(nil)
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g"))
	b.send(create)
	for i := range 5 {
		b.send(deliverytest.Command(create.GetConversationId(), "ann", 10+i, deliverytest.Text("before")))
	}
	b.loseStream()
	outcome := b.send(deliverytest.Command(create.GetConversationId(), "ann", 20, deliverytest.Text("after")))
	require.EqualValues(t, 7, outcome.GetSeq())
	b.store.Verify(t)
	require.GreaterOrEqual(t, w.count("stream_replaced_total"), 1)
	require.EqualValues(t, 1, b.store.Mark().GetSequence())
}

// The broker lost committed messages at the end of the stream, and has received no messages since.
func TestLostTail(t *testing.T) {
	b := newBed(t, 1)
	w := b.startWorker(nil)
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g"))
	b.send(create)
	w.stop()
	mark := b.store.Mark()
	mark.Sequence += 10
	mark.TimeNs++
	b.store.SetMark(mark)
	w = b.startWorker(nil)
	require.EqualValues(t, 2, b.send(deliverytest.Command(create.GetConversationId(), "ann", 2, deliverytest.Text("x"))).GetSeq())
	require.Equal(t, 1, w.count("stream_rewound_total"))
	require.EqualValues(t, 2, b.store.Mark().GetSequence())
	b.store.Verify(t)
}

// The broker lost committed messages at the end of the stream, and has received messages since. The new messages have the
// sequences of the lost messages.
func TestLostTailGrownAgain(t *testing.T) {
	b := newBed(t, 1)
	w := b.startWorker(nil)
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g"))
	b.send(create)
	w.stop()
	mark := b.store.Mark()
	grown := make([]*brokerv1.Command, 6)
	for i := range grown {
		grown[i] = deliverytest.Command(create.GetConversationId(), "ann", 10+i, deliverytest.Text("new"))
		b.putCommand(grown[i])
	}
	mark.Sequence += 4 // as if the broker had lost four committed messages
	b.store.SetMark(mark)
	w = b.startWorker(nil)
	for i, c := range grown {
		require.EqualValues(t, 2+i, b.resultOf(c).GetSeq())
	}
	require.Equal(t, 1, w.count("stream_rewound_total"))
	b.store.Verify(t)
}

// poison makes the store reject a batch that contains one certain message.
func poison(in *historyv1.AppendRequest) error {
	for _, event := range in.GetEvents() {
		if deliverytest.Decoded(event.GetBody()).GetMessage().GetText() == "poison" {
			return status.Error(codes.InvalidArgument, "events: cannot be stored")
		}
	}
	return nil
}

// A command that cannot be carried out becomes a dead letter with a reason, and the partition continues.
func TestDeadLetters(t *testing.T) {
	b := newBed(t, 1)
	b.store.Fail(poison, nil)
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g"))
	id := create.GetConversationId()
	first := b.startWorker(nil)
	b.eventually("the stream is made", func() bool { return first.state(0) == "running" })
	first.stop()
	b.putCommand(create)
	garbage := b.put([]byte("\xff garbage"))
	empty := b.put(nil)
	bad := deliverytest.Command(id, "ann", 5, deliverytest.Text("poison"))
	var want []*brokerv1.Command
	for i := range 10 {
		if i == 4 {
			b.putCommand(bad)
		}
		c := deliverytest.Command(id, "ann", 10+i, deliverytest.Text("fine"))
		b.putCommand(c)
		want = append(want, c)
	}
	w := b.startWorker(func(c *Config, _ *Deps) { c.MaxTries = 2 })
	for i, c := range want {
		require.EqualValues(t, 2+i, b.resultOf(c).GetSeq())
	}
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_DEAD_LETTERED, b.resultOf(bad).GetError().GetCode())
	letters := b.store.DeadLetters()
	require.Len(t, letters, 3)
	require.Equal(t, garbage, letters[0].GetSequence())
	require.Equal(t, []byte("\xff garbage"), letters[0].GetPayload())
	require.Equal(t, empty, letters[1].GetSequence())
	require.Contains(t, letters[2].GetReason(), "cannot be stored")
	require.EqualValues(t, 14, b.store.Mark().GetSequence())
	b.store.Verify(t)
	require.Equal(t, "running", w.state(0))
	require.Zero(t, w.count("partition_stopped"))
}

// A store that rejects every append stops the partition with an alarm, and no command is lost. When the store accepts
// appends again, the partition continues.
func TestStoreThatRefusesEverything(t *testing.T) {
	b := newBed(t, 1)
	b.store.Fail(func(*historyv1.AppendRequest) error { return status.Error(codes.InvalidArgument, "broken") }, nil)
	w := b.startWorker(func(c *Config, _ *Deps) { c.MaxTries = 1 })
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g"))
	b.eventually("the stream is there", func() bool { return w.state(0) == "running" })
	b.putCommand(create)
	b.eventually("the alarm", func() bool { return w.count("partition_stopped") == 1 })
	b.store.Fail(nil, nil)
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_DEAD_LETTERED, b.resultOf(create).GetError().GetCode())
	require.EqualValues(t, 1, b.send(deliverytest.Command("", "ann", 2, deliverytest.Group("h"))).GetSeq())
	b.eventually("the alarm ends", func() bool { return w.count("partition_stopped") == 0 })
}

// The owner dies after a commit and before publishing it. The next owner publishes the outcome and the event.
func TestNewOwnerTellsWhatWasCommitted(t *testing.T) {
	b := newBed(t, 1)
	w := b.startWorker(nil)
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g", "bob"))
	b.send(create)
	committed := wake.NewSignal()
	b.store.Fail(nil, func(*historyv1.AppendRequest) error {
		committed.Raise()
		return status.Error(codes.Unavailable, "the worker dies with the answer on its way")
	})
	message := deliverytest.Command(create.GetConversationId(), "bob", 2, deliverytest.Text("hello"))
	b.putCommand(message)
	<-committed
	w.stop()
	b.store.Fail(nil, nil)
	b.forget()
	w = b.startWorker(nil)
	outcome := b.resultOf(message)
	require.EqualValues(t, 2, outcome.GetSeq())
	require.False(t, outcome.GetRepeated())
	b.awaitEvent(create.GetConversationId(), 2)
	b.store.Verify(t)
	// The metric is updated after the event is published.
	b.eventually("what was told again is counted", func() bool { return w.count("republished_events_total") == 2 })
}

// A conflict at a conversation's seq means that the state in memory is wrong. The owner discards it and takes over again.
func TestTakenSeqBeginsAnew(t *testing.T) {
	b := newBed(t, 1)
	var once sync.Once
	b.store.Fail(func(*historyv1.AppendRequest) (err error) {
		once.Do(func() { err = status.Error(codes.FailedPrecondition, "taken") })
		return err
	}, nil)
	w := b.startWorker(nil)
	require.EqualValues(t, 1, b.send(deliverytest.Command("", "ann", 1, deliverytest.Group("g"))).GetSeq())
	require.Equal(t, 2, w.count("takeovers_total"))
}

// An append that is rejected again after the state was reloaded does not succeed by itself. The partition is stopped with
// an alarm that names the reason. The alarm lasts until the store accepts the append.
func TestWhatRepeatsAfterAFreshLoadIsAnAlarm(t *testing.T) {
	t.Parallel()
	for name, refusal := range map[string]error{
		"a head":         status.Error(codes.FailedPrecondition, "event 2 does not continue conversation g1: check it with runnel admin conversations verify g1"),
		"a position":     status.Error(codes.FailedPrecondition, "positions must rise"),
		"a newer effect": status.Error(codes.FailedPrecondition, "an effect is newer than this build of the history service"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // the tests mostly wait
			b := newBed(t, 1)
			w := b.startWorker(nil)
			create := deliverytest.Command("", "ann", 1, deliverytest.Group("g"))
			b.send(create)
			tries := 0
			b.store.Fail(func(*historyv1.AppendRequest) error { tries++; return refusal }, nil)
			message := deliverytest.Command(create.GetConversationId(), "ann", 2, deliverytest.Text("x"))
			b.putCommand(message)
			b.eventually("the alarm", func() bool { return w.count("partition_stopped") == 1 })
			require.Contains(t, w.state(0), "stopped: ")
			require.Contains(t, w.state(0), status.Convert(refusal).Message())
			takeovers := w.count("takeovers_total")
			require.GreaterOrEqual(t, takeovers, 2, "it was loaded anew once before")
			b.eventually("another try", func() bool { return w.count("takeovers_total") > takeovers })
			require.Contains(t, w.state(0), "stopped: ", "another session does not end the alarm")
			require.Equal(t, 1, w.count("partition_stopped"))
			b.store.Fail(nil, nil)
			require.EqualValues(t, 2, b.resultOf(message).GetSeq())
			b.eventually("the alarm ends", func() bool { return w.count("partition_stopped") == 0 && w.state(0) == "running" })
			b.store.Verify(t)
		})
	}
}

// A stopped worker hands its partitions over to another worker, and every command is committed once.
func TestHandover(t *testing.T) {
	b := newBed(t, 4)
	w := b.startWorker(nil)
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g"))
	b.send(create)
	next := uint64(2)
	for round := range 3 {
		successor := b.startWorker(nil)
		w.stop()
		for i := range 20 {
			require.Equal(t, next, b.send(deliverytest.Command(create.GetConversationId(), "ann", 100*(round+1)+i, deliverytest.Text("x"))).GetSeq())
			next++
		}
		w = successor
	}
	b.store.Verify(t)
	require.NoError(t, w.Check(t.Context()))
	b.eventually("all partitions are owned", func() bool { return w.count("partitions_owned") == 4 })
}

// split is a worker's view of the store with separate leases, so that two workers can own the same partition.
type split struct {
	*deliverytest.History
	leases *deliverytest.Leases
}

func (s *split) Lease(ctx context.Context, in *historyv1.LeaseRequest, opts ...grpc.CallOption) (*historyv1.LeaseResponse, error) {
	return s.leases.Lease(ctx, in, opts...)
}
