package delivery

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	deliveryv1 "github.com/runnelhq/runnel/proto/runnel/delivery/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/services/delivery/deliverytest"
)

// newer returns a command of a kind that this build does not know.
func newer(id string, n int) *brokerv1.Command {
	c := deliverytest.Command(id, "ann", n, deliverytest.Text("x"))
	c.Body = protowire.AppendBytes(protowire.AppendTag(nil, 700, protowire.BytesType), []byte("new"))
	c.Level = uint32(conversation.MaxLevel()) + 1
	return c
}

// A command of a newer version is not refused, dead-lettered or skipped. The commands before it are committed, and the
// partition stops.
func TestCommandOfANewerVersionStopsThePartition(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*brokerv1.Command){
		"kind": func(c *brokerv1.Command) { c.Level = 0 },
		"level": func(c *brokerv1.Command) {
			c.Body = deliverytest.Command("", "ann", 1, deliverytest.Text("known")).GetBody()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // they mostly wait
			b := newBed(t, 1)
			w := b.startWorker(nil)
			create := deliverytest.Command("", "ann", 1, deliverytest.Group("g"))
			b.send(create)
			b.raise()
			b.putCommand(deliverytest.Command(create.GetConversationId(), "ann", 2, deliverytest.Text("before it")))
			c := newer(create.GetConversationId(), 3)
			change(c)
			at := b.putCommand(c)
			b.putCommand(deliverytest.Command(create.GetConversationId(), "ann", 4, deliverytest.Text("after it")))
			b.eventually("the alarm", func() bool { return w.count("partition_stopped") == 1 })
			require.True(t, strings.HasPrefix(w.state(0), "stopped: "), w.state(0))
			require.Contains(t, w.state(0), fmt.Sprintf("Start workers of the version that knows level %d", conversation.MaxLevel()+1))
			require.Equal(t, at-1, b.store.Mark().GetSequence())
			require.Empty(t, b.store.DeadLetters())
			require.Positive(t, w.count("too_new_total"))
			b.mu.Lock()
			for _, r := range b.results {
				require.NotEqual(t, deliverytest.CommandID(3), r.GetOutcome().GetCommandId())
			}
			b.mu.Unlock()

			// The alarm lasts until the partition is past the command.
			b.requireStaysStopped(w, "too_new_total")
			b.store.Mu.Lock()
			b.store.Level = uint32(conversation.MaxLevel()) // an operator has found out that the command is of nobody honest
			b.store.Mu.Unlock()
			b.eventually("the alarm ends", func() bool { return w.count("partition_stopped") == 0 && w.state(0) == "running" })
			require.Len(t, b.store.DeadLetters(), 1)
			require.Contains(t, b.logs.String(), workingAgain)
		})
	}
}

// workingAgain is the log line that ends an alarm.
const workingAgain = "the partition is working again"

// requireStaysStopped requires that the alarm of the only partition lasts while a session tries again. Each session counts a
// metric when it meets the message that stops it.
func (b *bed) requireStaysStopped(w *worker, metric string) {
	b.t.Helper()
	before := w.count(metric)
	b.eventually("another try", func() bool { return w.count(metric) > before+1 })
	require.Equal(b.t, 1, w.count("partition_stopped"))
	require.True(b.t, strings.HasPrefix(w.state(0), "stopped: "), w.state(0))
	require.NotContains(b.t, b.logs.String(), workingAgain)
}

// raise raises the installation's level above what this build knows, as an operator may who does not see that it runs.
func (b *bed) raise() {
	b.store.Mu.Lock()
	defer b.store.Mu.Unlock()
	b.store.Level = uint32(conversation.MaxLevel()) + 1
}

// A command that claims a level above the installation's level cannot come from a correct gateway. It must not stop the
// partition.
func TestCommandThatOverstatesItsLevelIsPutAside(t *testing.T) {
	for name, restart := range map[string]bool{"while it runs": false, "at the takeover": true} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, 1)
			w := b.startWorker(nil)
			create := deliverytest.Command("", "ann", 1, deliverytest.Group("g"))
			b.send(create)
			if restart {
				w.stop()
			}
			b.putCommand(newer(create.GetConversationId(), 2))
			if restart {
				w = b.startWorker(nil)
			}
			require.EqualValues(t, 2, b.send(deliverytest.Command(create.GetConversationId(), "ann", 3, deliverytest.Text("after it"))).GetSeq())
			require.Len(t, b.store.DeadLetters(), 1)
			require.Zero(t, w.count("partition_stopped"))
		})
	}
}

// The partition moves to a live worker that knows the level.
func TestCommandOfANewerVersionMovesThePartition(t *testing.T) {
	b := newBed(t, 1)
	w := b.startWorker(nil)
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g"))
	b.send(create)
	alive, err := (&brokerv1.Alive{Instance: "newer", Service: "delivery", Level: uint32(conversation.MaxLevel()) + 1}).MarshalVT()
	require.NoError(t, err)
	b.eventually("the newer worker is heard of", func() bool {
		require.NoError(t, b.nc.Publish("ops.alive", alive))
		return len(w.fleet.Members("delivery")) == 2
	})
	b.raise()
	b.putCommand(newer(create.GetConversationId(), 2))
	b.eventually("it is moved", func() bool {
		b.store.Leases.Mu.Lock()
		defer b.store.Leases.Mu.Unlock()
		return b.store.Leases.Wanted[0] == "newer"
	})
	b.eventually("it says so", func() bool { return strings.Contains(w.state(0), "the partition goes to newer") })
}

// A worker that is incompatible with the installation does not start.
func TestWorkerThatDoesNotFit(t *testing.T) {
	b := newBed(t, 2)
	run := func(partitions int) error {
		cfg := b.brokerConfig()
		cfg.Partitions = partitions
		s, err := New(Config{}, Deps{NATS: b.connect(), Broker: cfg, History: b.store})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		return s.Run(ctx)
	}
	require.ErrorIs(t, run(3), ErrPartitions)
	b.store.Level = uint32(conversation.MaxLevel()) + 1
	require.ErrorIs(t, run(2), ErrLevel)
}

func TestRaiseLevelOfAStandalone(t *testing.T) {
	store := deliverytest.NewHistory(1)
	store.Level = 0
	for range 2 {
		level, err := RaiseLevel(t.Context(), store, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		require.Equal(t, conversation.MaxLevel(), level)
	}
	store.Level = uint32(conversation.MaxLevel()) + 1
	_, err := RaiseLevel(t.Context(), store, slog.New(slog.DiscardHandler))
	require.ErrorIs(t, err, ErrLevel)
}

// Submit accepts kinds up to the installation's level and refuses unknown kinds.
func TestSubmitAdmits(t *testing.T) {
	b := newBed(t, 1)
	b.store.Level = 0
	w := b.startWorker(nil)
	b.eventually("running", func() bool { return w.state(0) == "running" })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	request := &deliveryv1.SubmitRequest{Sender: "ann", CommandId: deliverytest.CommandID(1), Body: deliverytest.Group("g")}
	_, err := w.Submit(ctx, request)
	require.Equal(t, codes.FailedPrecondition, status.Code(err))
	b.store.Mu.Lock()
	b.store.Level = 1
	b.store.Mu.Unlock()
	answer, err := w.Submit(ctx, request)
	require.NoError(t, err)
	require.EqualValues(t, 1, answer.GetOutcome().GetSeq())

	for _, body := range []*conversationv1.Body{deliverytest.Group("h"), deliverytest.Text("x")} {
		nested := body.GetCreate().ProtoReflect()
		if body.GetCreate() == nil {
			nested = body.ProtoReflect()
		}
		nested.SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 999, protowire.VarintType), 1))
		_, err = commandOf(&deliveryv1.SubmitRequest{Sender: "ann", CommandId: deliverytest.CommandID(2), Body: body})
		require.Equal(t, codes.InvalidArgument, status.Code(err))
		require.ErrorContains(t, err, "does not know")
	}
	c, err := commandOf(&deliveryv1.SubmitRequest{Sender: "ann", CommandId: deliverytest.CommandID(3), Body: deliverytest.Group("g", "bob")})
	require.NoError(t, err)
	require.EqualValues(t, 1, c.GetLevel())
	require.Equal(t, deliverytest.Command("", "ann", 3, deliverytest.Group("g", "bob")).GetBody(), c.GetBody())
}
