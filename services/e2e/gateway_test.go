package e2e_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/pkg/telemetry"
	"github.com/runnelhq/runnel/pkg/telemetry/telemetrytest"
	"github.com/runnelhq/runnel/services/gateway"
	"github.com/runnelhq/runnel/services/history"
)

// stage is a gateway with a real broker and a real store. The test replaces the delivery service: it decides which live
// messages are lost, late or repeated.
type stage struct {
	suite
	nc       *nats.Conn
	history  *interposed
	registry *prometheus.Registry
	gw       *gateway.Gateway
	worker   *worker
	id       string
	mark     *historyv1.Watermark
}

func newStage(t *testing.T, change func(*gateway.Config)) *stage {
	t.Helper()
	return newTracedStage(t, change, nil)
}

func newTracedStage(t *testing.T, change func(*gateway.Config), provider trace.TracerProvider) *stage {
	t.Helper()
	return newStageWith(t, change, func(d *gateway.Deps) { d.TracerProvider = provider })
}

func newStageWith(t *testing.T, change func(*gateway.Config), equip func(*gateway.Deps)) *stage {
	t.Helper()
	ns, err := server.NewServer(&server.Options{DontListen: true, JetStream: true, StoreDir: t.TempDir(), NoSigs: true})
	require.NoError(t, err)
	ns.Start()
	require.True(t, ns.ReadyForConnections(patience))
	log := slog.New(slog.DiscardHandler)
	nc, err := broker.Connect(broker.Config{}, "stage", log, prometheus.NewRegistry(), nats.InProcessServer(ns))
	require.NoError(t, err)
	cfg := defaults(t)
	cfg.History.Database = "sqlite:" + filepath.Join(t.TempDir(), "history.db")
	store, err := history.Open(t.Context(), cfg.History, 1, log)
	require.NoError(t, err)
	inproc := rpc.NewInproc(telemetry.Discard())
	historyv1.RegisterHistoryServiceServer(inproc, history.New(cfg.History, store, log, prometheus.NewRegistry()))
	verifier, err := auth.New(cfg.Auth, auth.Options{})
	require.NoError(t, err)
	if change != nil {
		change(&cfg.Gateway)
	}
	client := historyv1.NewHistoryServiceClient(inproc)
	s := &stage{
		suite: suite{t: t, logs: &telemetrytest.Log{}}, nc: nc, registry: prometheus.NewRegistry(),
		history: &interposed{HistoryServiceClient: client, installation: client}, worker: newWorker(t),
	}
	deps := gateway.Deps{
		NATS: nc, Partitions: 1, History: s.history, Verifier: verifier,
		Log: slog.New(slog.NewTextHandler(s.logs, nil)), Registerer: s.registry,
	}
	equip(&deps)
	s.gw, err = gateway.New(cfg.Gateway, deps)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.gw.Run(ctx) }()
	var once sync.Once
	s.stop = func() {
		once.Do(func() {
			cancel()
			require.NoError(t, <-done)
		})
	}
	t.Cleanup(func() {
		s.stop()
		nc.Close()
		require.NoError(t, store.Close())
		ns.Shutdown()
		ns.WaitForShutdown()
		verifier.Close()
	})
	return s
}

func (s *stage) url() string { return "ws://" + s.gw.Addr().String() + gateway.Path }

func (s *stage) login(user string, resume ...*clientv1.Position) *raw {
	s.t.Helper()
	return loginAt(s.t, s.url(), user, frame.JSON, resume...)
}

// commit stores an event of ann's without publishing it.
func (s *stage) commit(body *conversationv1.Body) *conversationv1.Event {
	s.t.Helper()
	request := &historyv1.AppendRequest{Expected: s.mark}
	event := s.worker.apply("ann", body, time.Now().UnixMilli(), request)
	s.id = s.worker.id
	answer, err := s.history.Append(s.t.Context(), request)
	require.NoError(s.t, err)
	require.Empty(s.t, answer.GetDuplicates())
	s.mark = request.GetNext()
	s.mark.Epoch = answer.GetEpoch()
	return event
}

// tell publishes events as a delivery worker does.
func (s *stage) tell(events ...*conversationv1.Event) {
	s.t.Helper()
	data, err := (&brokerv1.Live{Events: events}).MarshalVT()
	require.NoError(s.t, err)
	require.NoError(s.t, s.nc.Publish(broker.LiveSubject(ids.Conversation(s.id)), data))
}

// say commits a message and publishes it.
func (s *stage) say(message string) {
	s.t.Helper()
	s.tell(s.commit(text(message)))
}

// seqs reads pushed events up to a seq, and returns all seqs in order.
func (r *raw) seqs(last uint64) (seqs []uint64) {
	r.t.Helper()
	r.until(func(f *clientv1.ServerFrame) bool {
		if f.GetEvent() != nil {
			seqs = append(seqs, f.GetEvent().GetSeq())
		}
		return f.GetEvent().GetSeq() == last
	})
	return seqs
}

// These tests are about the joints: NATS, history, sockets and timers. What a gateway decides is tested beside its code, in
// services/gateway.

func TestALostLiveMessageIsReadFromHistory(t *testing.T) {
	s := newStage(t, nil)
	s.commit(group("bob"))
	bob := s.login("bob")
	require.Equal(t, []uint64{1}, bob.seqs(1))
	s.say("2")
	s.commit(text("3, lost"))
	s.commit(text("4, lost"))
	s.say("5")
	require.Equal(t, []uint64{2, 3, 4, 5}, bob.seqs(5))
}

func TestTheLossOfTheLastEventIsNoticed(t *testing.T) {
	s := newStage(t, func(cfg *gateway.Config) { cfg.Heartbeat = 2 * time.Second })
	s.commit(group("bob"))
	bob := s.login("bob")
	bob.seqs(1)
	s.commit(text("2, lost"))
	require.Equal(t, []uint64{2}, bob.seqs(2))
}

func (r *raw) ackTo(id string, seq uint64) {
	r.t.Helper()
	r.send(&clientv1.ClientFrame{Request: &clientv1.ClientFrame_Ack{Ack: &clientv1.Ack{
		Positions: []*clientv1.AckPosition{{ConversationId: id, Delivered: seq}},
	}}})
}

// TestASlowClientIsClosedAndResumes has a client that reads nothing while far more is sent than sockets can buffer.
func TestASlowClientIsClosedAndResumes(t *testing.T) {
	s := newStageWith(t, slowly, func(d *gateway.Deps) { d.Listener = narrowListener(t) })
	s.commit(group("bob", "cem"))
	slow, quick := dialNarrowly(t, s.url()).connect("bob"), s.login("cem")
	slow.seqs(1)
	large := strings.Repeat("x", 8000)
	quick.seqs(1)
	events := uint64(1)
	say := func() {
		s.say(large)
		events++
		quick.event(events) // others do not wait for the slow client
		require.Less(t, events, uint64(64), "far more than narrow sockets hold")
	}
	for s.queued("bob") == 0 { // until the sockets are full
		say()
	}
	require.Positive(t, s.counter("runnel_gateway_send_queue_bytes"))
	require.Positive(t, s.counter("runnel_gateway_send_queue_max_bytes"))
	for s.counter("runnel_gateway_limit_refusals_total", "limit=send_queue_bytes") == 0 { // until the sockets and the queue are full
		say()
	}
	seen := uint64(1)
	for {
		f, err := slow.receive()
		if err != nil {
			require.Equal(t, errcode.CloseSlow, closeCode(t, err))
			break
		}
		if f.GetEvent() != nil {
			require.Equal(t, seen+1, f.GetEvent().GetSeq())
			seen++
		}
	}
	require.Less(t, seen, events)
	require.Equal(t, 1, s.counter("runnel_gateway_limit_refusals_total", "limit=send_queue_bytes"))
	rest := s.login("bob", &clientv1.Position{ConversationId: s.id, Seq: seen}).seqs(events)
	require.Equal(t, seen+1, rest[0])
	require.Len(t, rest, int(events-seen))
}

// queued is how many bytes wait for a user's only connection.
func (s *stage) queued(user string) uint64 {
	list, err := s.gw.Server().ListConnections(s.t.Context(), &gatewayv1.ListConnectionsRequest{UserId: user})
	require.NoError(s.t, err)
	require.Len(s.t, list.GetConnections(), 1)
	return list.GetConnections()[0].GetQueuedBytes()
}
