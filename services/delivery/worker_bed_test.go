package delivery

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	deliveryv1 "github.com/runnelhq/runnel/proto/runnel/delivery/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/bus"
	"github.com/runnelhq/runnel/pkg/telemetry/telemetrytest"
	"github.com/runnelhq/runnel/services/admin"
	"github.com/runnelhq/runnel/services/delivery/deliverytest"
	"github.com/runnelhq/runnel/services/delivery/wake"
)

// patience is how long a test waits for what must come; it only decides how fast a broken build fails.
const patience = 30 * time.Second

// bed is a test bed: a real NATS server in the process, a fake store, and subscriptions to all published messages.
type bed struct {
	t          testing.TB
	partitions int
	dir        string
	server     *server.Server
	nc         *nats.Conn
	js         jetstream.JetStream
	store      *deliverytest.History
	submitter  *broker.Submitter
	logs       telemetrytest.Log // of all workers

	mu       sync.Mutex
	changed  wake.Signal
	events   []*conversationv1.Event // published events in order of receipt, including repeats
	lives    []*brokerv1.Live        // live messages that contain events
	receipts []*conversationv1.Receipt
	joined   []*brokerv1.Joined
	results  []*brokerv1.Result
	// quiet, if set, is called with the seq of each event. The event is then not kept.
	quiet func(seq uint64)
}

func newBed(tb testing.TB, partitions int) *bed {
	tb.Helper()
	b := &bed{t: tb, partitions: partitions, dir: tb.TempDir(), store: deliverytest.NewHistory(partitions), changed: wake.NewSignal()}
	b.startServer()
	b.nc = b.connect()
	var err error
	b.js, err = jetstream.New(b.nc)
	require.NoError(tb, err)
	b.subscribe("live.*", func(data []byte) {
		var live brokerv1.Live
		require.NoError(tb, live.UnmarshalVT(data))
		if b.quiet != nil {
			if n := len(live.GetEvents()); n > 0 {
				b.quiet(live.GetEvents()[n-1].GetSeq())
			}
			return
		}
		b.events = append(b.events, live.GetEvents()...)
		if len(live.GetEvents()) > 0 {
			b.lives = append(b.lives, &live)
		}
		if live.GetReceipt() != nil {
			b.receipts = append(b.receipts, live.GetReceipt())
		}
	})
	b.subscribe("result.>", func(data []byte) {
		var results brokerv1.Results
		require.NoError(tb, results.UnmarshalVT(data))
		b.results = append(b.results, results.GetResults()...)
	})
	b.subscribe(broker.JoinedSubject, func(data []byte) {
		var joined brokerv1.Joined
		require.NoError(tb, joined.UnmarshalVT(data))
		b.joined = append(b.joined, &joined)
	})
	b.submitter, err = broker.NewSubmitter(b.nc, bus.OverNATS{Conn: b.nc}, partitions, "test", broker.SubmitterConfig{AcceptTimeout: patience}, slog.New(slog.DiscardHandler))
	require.NoError(tb, err)
	tb.Cleanup(b.submitter.Close)
	return b
}

func (b *bed) startServer() {
	s, err := server.NewServer(&server.Options{
		ServerName: "bed", DontListen: true, JetStream: true, StoreDir: b.dir, NoSigs: true, NoLog: true,
	})
	require.NoError(b.t, err)
	s.Start()
	require.True(b.t, s.ReadyForConnections(patience))
	b.mu.Lock()
	b.server = s
	b.mu.Unlock()
	b.t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
}

// loseStream removes the stream of partition 0 while NATS is stopped, and starts NATS again. A stream that is deleted while NATS runs
// is unknown before its files are removed: a worker that creates it anew in between would lose the files of the new one.
func (b *bed) loseStream() {
	b.t.Helper()
	b.server.Shutdown()
	b.server.WaitForShutdown()
	stream := filepath.Join(b.dir, server.JetStreamStoreDir, "$G", "streams", broker.StreamName(0))
	require.DirExists(b.t, stream)
	require.NoError(b.t, os.RemoveAll(stream))
	b.startServer()
}

func (b *bed) connect() *nats.Conn {
	nc, err := broker.Connect(broker.Config{URL: nats.DefaultURL}, "test", slog.New(slog.DiscardHandler), prometheus.NewRegistry(), nats.InProcessServer(b))
	require.NoError(b.t, err)
	b.t.Cleanup(nc.Close)
	return nc
}

func (b *bed) subscribe(subject string, take func(data []byte)) {
	_, err := b.nc.Subscribe(subject, func(msg *nats.Msg) {
		b.mu.Lock()
		take(msg.Data)
		b.mu.Unlock()
		b.changed.Raise()
	})
	require.NoError(b.t, err)
	require.NoError(b.t, b.nc.Flush())
}

func (b *bed) brokerConfig() broker.Config {
	return broker.Config{Partitions: b.partitions, Replicas: 1, MaxBytes: 64 << 20, MaxAge: time.Hour, DuplicateWindow: time.Minute}
}

// worker is a running delivery service.
type worker struct {
	*Service
	operators *admin.Server
	metrics   *prometheus.Registry
	stop      func()
}

// startWorker starts a worker. change, if not nil, changes the worker's configuration or dependencies.
func (b *bed) startWorker(change func(*Config, *Deps)) *worker {
	cfg := Config{Name: "w", LeaseTTL: 400 * time.Millisecond, AppendTimeout: time.Second, FlushInterval: 10 * time.Millisecond}
	registry := prometheus.NewRegistry()
	deps := Deps{NATS: b.connect(), Broker: b.brokerConfig(), History: b.store, Registerer: registry, Log: slog.New(slog.NewTextHandler(io.MultiWriter(b.t.Output(), &b.logs), nil))}
	if change != nil {
		change(&cfg, &deps)
	}
	service, err := New(cfg, deps)
	require.NoError(b.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	finished := make(chan error, 1)
	go func() { finished <- service.Run(ctx) }()
	var once sync.Once
	operators := admin.New(admin.Deps{
		History: deps.History, Fleet: service.Fleet(), Submit: service.Do, Bus: bus.OverNATS{Conn: deps.NATS}, Partitions: b.partitions, Log: deps.Log,
	})
	w := &worker{Service: service, operators: operators, metrics: registry, stop: func() {
		once.Do(func() {
			cancel()
			require.NoError(b.t, <-finished)
		})
	}}
	b.t.Cleanup(w.stop)
	return w
}

// send submits a command and returns its outcome. The test fails if no outcome arrives.
func (b *bed) send(c *brokerv1.Command) *conversationv1.Outcome {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	outcome, err := b.submitter.Do(ctx, c, nil)
	require.NoError(b.t, err)
	return outcome
}

// put publishes a message unchanged to the stream of partition 0 and returns its sequence.
func (b *bed) put(payload []byte) uint64 {
	b.t.Helper()
	ack, err := b.js.Publish(b.t.Context(), broker.CommandSubject(0), payload)
	require.NoError(b.t, err)
	return ack.Sequence
}

// putCommand puts a command into the stream of partition 0.
func (b *bed) putCommand(c *brokerv1.Command) uint64 {
	b.t.Helper()
	payload, err := c.MarshalVT()
	require.NoError(b.t, err)
	return b.put(payload)
}

// await waits until a published message makes the condition true. The condition runs with mu held.
func (b *bed) await(what string, condition func() bool) {
	b.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		b.mu.Lock()
		met := condition()
		b.mu.Unlock()
		if met {
			return
		}
		select {
		case <-b.changed:
		case <-deadline.C:
			require.Fail(b.t, "never happened: "+what)
		}
	}
}

func (b *bed) awaitEvent(id string, seq uint64) {
	b.t.Helper()
	b.await("an event is told", func() bool {
		for _, event := range b.events {
			if event.GetConversationId() == id && event.GetSeq() == seq {
				return true
			}
		}
		return false
	})
}

// resultOf waits for a result of the command.
func (b *bed) resultOf(c *brokerv1.Command) *conversationv1.Outcome {
	b.t.Helper()
	var outcome *conversationv1.Outcome
	b.await("a result is told", func() bool {
		for _, r := range b.results {
			// Results are matched by salt, as in gateways: a result for another copy of the command does not count.
			if r.GetSender() == c.GetSender() && r.GetOutcome().GetCommandId() == c.GetCommandId() && bytes.Equal(r.GetSalt(), c.GetSalt()) {
				outcome = r.GetOutcome()
			}
		}
		return outcome != nil
	})
	return outcome
}

// forget discards all messages that were received until now.
func (b *bed) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events, b.lives, b.results, b.receipts, b.joined = nil, nil, nil, nil, nil
}

// eventually polls a condition that no published message announces.
func (b *bed) eventually(what string, condition func() bool) {
	b.t.Helper()
	require.Eventually(b.t, condition, patience, 5*time.Millisecond, what)
}

func (w *worker) state(partition uint32) string {
	answer, _ := w.ListPartitions(context.Background(), &deliveryv1.ListPartitionsRequest{})
	for _, p := range answer.GetPartitions() {
		if p.GetPartition() == partition {
			return p.GetState()
		}
	}
	return ""
}

// count returns the sum of a metric over its labels. All metrics that the tests sum have integer values.
func (w *worker) count(name string) int {
	families, err := w.metrics.Gather()
	if err != nil {
		return -1
	}
	var sum float64
	for _, family := range families {
		if family.GetName() != "runnel_delivery_"+name {
			continue
		}
		for _, m := range family.GetMetric() {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return int(sum)
}

// InProcessConn connects to the current server. The server can therefore be replaced while clients exist.
func (b *bed) InProcessConn() (net.Conn, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.server.InProcessConn()
}
