package e2e_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	deliveryv1 "github.com/runnelhq/runnel/proto/runnel/delivery/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/bus"
	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/listen/reserve"
	"github.com/runnelhq/runnel/pkg/postgrestest"
	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/pkg/telemetry"
	"github.com/runnelhq/runnel/services/delivery"
	"github.com/runnelhq/runnel/services/history"
)

// wide is an installation with several of every part behind the gateways: three NATS servers with replicated streams, two
// history services on one PostgreSQL, and as many delivery workers as the test starts.
type wide struct {
	*floor

	servers   string
	histories []historyv1.HistoryServiceClient
	hired     int
	workers   map[string]*hand
}

// hand is one worker.
type hand struct {
	service *delivery.Service
	stop    func()
}

func newWide(t *testing.T) *wide {
	t.Helper()
	w := &wide{floor: &floor{t: t, partitions: 16}, workers: map[string]*hand{}}
	w.servers = natsCluster(t)
	tel, err := telemetry.Start(t.Context(), "test", telemetry.Config{LogLevel: "warn", LogFormat: "text"}, t.Output())
	require.NoError(t, err)
	cfg := history.Config{Database: postgrestest.Start(t), Connections: 4}
	for range 2 {
		store, err := history.Open(t.Context(), cfg, w.partitions, tel.Log)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, store.Close()) })
		inproc := rpc.NewInproc(telemetry.Discard())
		historyv1.RegisterHistoryServiceServer(inproc, history.New(cfg, store, tel.Log, prometheus.NewRegistry()))
		w.histories = append(w.histories, historyv1.NewHistoryServiceClient(inproc))
	}
	w.history = w.histories[0]
	w.nc = w.join()
	w.submitter, err = broker.NewSubmitter(w.nc, bus.OverNATS{Conn: w.nc}, w.partitions, "test", broker.SubmitterConfig{}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(w.submitter.Close)
	js, err := jetstream.New(w.nc)
	require.NoError(t, err)
	// A new cluster elects its leader first.
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := js.AccountInfo(ctx)
		return err == nil
	}, 2*patience, 50*time.Millisecond)
	return w
}

// natsCluster starts a cluster of three servers, and returns their addresses.
func natsCluster(t *testing.T) string {
	t.Helper()
	const nodes = 3
	var routes []*url.URL
	var ports []int
	for range nodes {
		port, err := reserve.Port()
		require.NoError(t, err)
		ports = append(ports, port)
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprint("127.0.0.1:", port)})
	}
	servers := make([]string, 0, nodes)
	for i := range nodes {
		ns, err := server.NewServer(&server.Options{
			ServerName: fmt.Sprint("n", i), Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(),
			Cluster: server.ClusterOpts{Name: "wide", Host: "127.0.0.1", Port: ports[i]}, Routes: routes, NoSigs: true, NoLog: true,
		})
		require.NoError(t, err)
		ns.Start()
		t.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
		require.True(t, ns.ReadyForConnections(patience))
		servers = append(servers, ns.ClientURL())
	}
	return strings.Join(servers, ",")
}

func (w *wide) join() *nats.Conn {
	w.t.Helper()
	nc, err := broker.Connect(broker.Config{URL: w.servers}, "test", slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(w.t, err)
	w.t.Cleanup(nc.Close)
	return nc
}

// hire starts a worker on the next history service.
func (w *wide) hire() (name string) {
	w.t.Helper()
	name = fmt.Sprint("worker-", w.hired)
	worker, err := delivery.New(delivery.Config{Name: name}, delivery.Deps{
		NATS:    w.join(),
		Broker:  broker.Config{Partitions: w.partitions, Replicas: 3, MaxBytes: 64 << 20, MaxAge: time.Hour, DuplicateWindow: time.Minute},
		History: w.histories[w.hired%len(w.histories)],
	})
	require.NoError(w.t, err)
	w.hired++
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- worker.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		require.NoError(w.t, <-done)
	})
	w.t.Cleanup(stop)
	w.workers[name] = &hand{worker, stop}
	return name
}

func (w *wide) dismiss(name string) {
	w.workers[name].stop()
	delete(w.workers, name)
}

// spread returns how many partitions each worker works on, rising, and whether every partition runs exactly once.
func (w *wide) spread() (counts []int, whole bool) {
	w.t.Helper()
	seen := map[uint32]int{}
	for _, hand := range w.workers {
		answer, err := hand.service.ListPartitions(w.t.Context(), &deliveryv1.ListPartitionsRequest{})
		require.NoError(w.t, err)
		running := 0
		for _, p := range answer.GetPartitions() {
			if p.GetState() == "running" {
				running++
				seen[p.GetPartition()]++
			}
		}
		counts = append(counts, running)
	}
	slices.Sort(counts)
	once := !slices.ContainsFunc(slices.Collect(maps.Values(seen)), func(n int) bool { return n != 1 })
	return counts, once && len(seen) == w.partitions
}

// spreads waits until the partitions are spread as given.
func (w *wide) spreads(want ...int) {
	w.t.Helper()
	var got []int
	require.Eventuallyf(w.t, func() bool {
		counts, whole := w.spread()
		got = counts
		return whole && slices.Equal(counts, want)
	}, 4*patience, 20*time.Millisecond, "want %v", want)
	w.t.Logf("spread over %d workers: %v", len(w.workers), got)
}

// Workers are added, removed and replaced one by one while users send: the partitions stay evenly spread, and the logs are
// complete.
func TestPartitionsFollowTheWorkers(t *testing.T) {
	w := newWide(t)
	ctx, cancel := context.WithTimeout(t.Context(), 12*patience)
	defer cancel()
	first, second := w.hire(), w.hire()
	w.spreads(8, 8)

	talk, hush := context.WithCancel(ctx)
	defer hush()
	var talking sync.WaitGroup
	defer talking.Wait()
	defer hush()
	type said struct {
		id    string
		count uint64
	}
	results := make(chan said, 24)
	failures := make(chan error, 24)
	for i := range cap(results) { // enough for every partition to have some
		talking.Go(func() {
			user := fmt.Sprint("user-", i)
			body, id, count := group("bob"), "", uint64(0)
			for talk.Err() == nil {
				outcome, err := w.send(ctx, user, id, uuid.Must(uuid.NewV7()).String(), body)
				if err != nil {
					failures <- fmt.Errorf("%s after %d: %w", user, count, err)
					return
				}
				id, body, count = outcome.GetConversationId(), text("hello"), count+1
				if outcome.GetSeq() != count {
					failures <- fmt.Errorf("%s: seq %d instead of %d", user, outcome.GetSeq(), count)
					return
				}
			}
			results <- said{id, count}
		})
	}

	third := w.hire()
	w.spreads(5, 5, 6)
	fourth := w.hire()
	w.spreads(4, 4, 4, 4)
	w.dismiss(first)
	w.spreads(5, 5, 6)
	for _, old := range []string{second, third, fourth} { // a rolling restart: the new one first, as with maxSurge
		w.hire()
		w.spreads(4, 4, 4, 4)
		w.dismiss(old)
		w.spreads(5, 5, 6)
	}

	hush()
	talking.Wait()
	close(failures)
	for err := range failures {
		require.NoError(t, err)
	}
	close(results)
	total := uint64(0)
	for r := range results {
		total += r.count
		var v chain.Verifier
		for after := uint64(0); after < r.count; {
			page, err := w.histories[1].Read(ctx, &historyv1.ReadRequest{ConversationId: r.id, After: after, Limit: 1000})
			require.NoError(t, err)
			require.NotEmpty(t, page.GetEvents())
			for _, event := range page.GetEvents() {
				_, err := v.Next(event)
				require.NoError(t, err)
			}
			after = page.GetEvents()[len(page.GetEvents())-1].GetSeq()
			require.False(t, after == r.count && page.GetMore(), "more events than were sent")
		}
	}
	t.Logf("%d messages, every log whole", total)
}
