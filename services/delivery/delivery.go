package delivery

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	deliveryv1 "github.com/runnelhq/runnel/proto/runnel/delivery/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/bus"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/fleet"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/telemetry"

	"github.com/runnelhq/runnel/services/delivery/flight"
	"github.com/runnelhq/runnel/services/delivery/lease"
	"github.com/runnelhq/runnel/services/delivery/metrics"
	"github.com/runnelhq/runnel/services/delivery/partition"
	"github.com/runnelhq/runnel/services/delivery/partition/takeover"
)

// Deps are the dependencies of a worker. NATS and History are required.
type Deps struct {
	// NATS is the connection to the broker; the caller closes it after Run has returned.
	NATS *nats.Conn
	// Bus carries outcomes, live events, acknowledgements and notices. Defaults to NATS.
	Bus bus.Bus
	// Broker sets the number of partitions, and the settings with which missing streams are created.
	Broker broker.Config
	// History is the store.
	History historyv1.HistoryServiceClient
	// Log defaults to discarding, Registerer to a registry of its own, TracerProvider to no traces, Now to the wall
	// clock.
	Log            *slog.Logger
	Registerer     prometheus.Registerer
	TracerProvider trace.TracerProvider
	Now            func() time.Time
}

func (d Deps) withDefaults() Deps {
	if d.Bus == nil {
		d.Bus = bus.OverNATS{Conn: d.NATS}
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Registerer == nil {
		d.Registerer = prometheus.NewRegistry()
	}
	if d.TracerProvider == nil {
		d.TracerProvider = noop.NewTracerProvider()
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	return d
}

// Service is one delivery worker.
type Service struct {
	deliveryv1.UnimplementedDeliveryServiceServer

	cfg      Config
	deps     Deps
	worker   string
	js       jetstream.JetStream
	metrics  *metrics.Metrics
	recorder *flight.Recorder
	probe    *broker.Probe
	tracer   trace.Tracer
	leases   *lease.Manager
	fleet    *fleet.Fleet
	running  sync.WaitGroup // the running partition workers

	installation *installation

	making sync.Mutex // held while streams are created

	mu        sync.Mutex
	submitter *broker.Submitter // nil while not running
	workers   map[ids.Partition]*partition.Worker
	// acknowledged contains the last acknowledged watermark of each partition, including partitions that this worker no
	// longer owns.
	acknowledged map[ids.Partition]*takeover.Acknowledged
}

// New creates a worker. It does nothing before Run.
func New(cfg Config, deps Deps) (*Service, error) {
	cfg, deps = cfg.withDefaults(), deps.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configuration of delivery: %w", err)
	}
	if deps.Broker.Partitions < 1 {
		return nil, errors.New("configuration of delivery: the number of partitions must be at least 1")
	}
	js, err := jetstream.New(deps.NATS)
	if err != nil {
		return nil, fmt.Errorf("use JetStream: %w", err)
	}
	recorder := flight.NewRecorder(cfg.ExplainEntries, deps.Now())
	counters, err := metrics.New(deps.Registerer, deps.Broker.Partitions, recorder.Since)
	if err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	worker := workerName(cfg.Name)
	deps.Log = deps.Log.With("worker", worker)
	s := &Service{
		cfg: cfg, deps: deps, worker: worker, js: js, metrics: counters, recorder: recorder,
		tracer: deps.TracerProvider.Tracer(flight.ScopeName), workers: map[ids.Partition]*partition.Worker{}, acknowledged: map[ids.Partition]*takeover.Acknowledged{},
	}
	s.probe = broker.NewProbe(deps.NATS, func(ctx context.Context) error { return broker.EnsureProbeStream(ctx, js, deps.Broker) })
	s.leases = lease.New(lease.Config{
		Store: deps.History, Worker: worker, Partitions: deps.Broker.Partitions, TTL: cfg.LeaseTTL, Log: deps.Log,
		Failures: counters.LeaseFailures, Moves: counters.Moves,
		Start: s.startPartition, Announce: s.announceReleased, Fit: deps.NATS.IsConnected,
	})
	s.fleet = fleet.New(fleet.Config{NATS: deps.NATS, Service: "delivery", Instance: worker, Log: deps.Log})
	s.fleet.RegisterService(questions(), s)
	s.installation = &installation{
		history: deps.History, fleet: s.fleet, worker: worker, partitions: deps.Broker.Partitions, log: deps.Log,
	}
	return s, nil
}

// Name is the name of this worker in leases and for operators. Each start has a new name.
func (s *Service) Name() string { return s.worker }

// Fleet sends queries to other gateways and workers, while Run runs.
func (s *Service) Fleet() *fleet.Fleet { return s.fleet }

// Run works until ctx ends, then releases all partitions. It may be called once. It returns ErrLevel or ErrPartitions if the
// worker does not match the installation.
func (s *Service) Run(ctx context.Context) error {
	if err := s.installation.await(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	nc := s.deps.NATS
	submitter, err := broker.NewSubmitter(nc, s.deps.Bus, s.deps.Broker.Partitions, s.worker, broker.SubmitterConfig{}, s.deps.Log)
	if err != nil {
		return fmt.Errorf("start the submitter: %w", err)
	}
	defer submitter.Close()
	s.setSubmitter(submitter)
	defer s.setSubmitter(nil)

	released, err := s.deps.Bus.Subscribe(broker.ReleasedSubject, func(*nats.Msg) { s.leases.RenewNow() })
	if err != nil {
		return err
	}
	defer func() { _ = released.Unsubscribe() }() // fails only if the connection is closed

	if err := broker.Allowed(nc); err != nil {
		return err
	}
	watching, cancel := context.WithCancel(ctx)
	var watcher sync.WaitGroup
	watcher.Go(func() { s.watchConnection(watching) })
	watcher.Go(func() {
		if err := s.fleet.Run(watching); err != nil {
			s.deps.Log.Error("operators cannot query this worker", "error", err) // commits do not depend on queries, so the worker continues
		}
	})
	defer watcher.Wait()
	defer cancel()

	s.leases.Run(ctx)
	s.running.Wait()
	return nil
}

// Checks are the conditions for readiness: the worker works, and NATS stores commands.
func (s *Service) Checks() map[string]telemetry.Check {
	return map[string]telemetry.Check{"delivery": s.Check, "nats": s.probe.Check}
}

// Check reports whether the worker can do its work. If some of its partitions are stopped with an alarm, the worker is
// degraded, not unready: moving its healthy partitions to other workers would not help the stopped ones.
func (s *Service) Check(context.Context) error {
	if !s.deps.NATS.IsConnected() {
		return errors.New("not connected to NATS")
	}
	s.mu.Lock()
	running := s.submitter != nil
	s.mu.Unlock()
	if !running {
		return errors.New("not running")
	}
	if since := time.Since(s.leases.LastRenewal()); since > s.cfg.LeaseTTL {
		return fmt.Errorf("the history service last renewed the leases %v ago: it or its database is unavailable", since.Round(time.Second))
	}
	return s.checkPartitions()
}

// checkPartitions reports partitions that are stopped with an alarm.
func (s *Service) checkPartitions() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var stopped []string
	for _, p := range slices.Sorted(maps.Keys(s.workers)) {
		if state := s.workers[p].Describe().GetState(); partition.IsStopped(state) {
			stopped = append(stopped, fmt.Sprintf("partition %d is %s", p, state))
		}
	}
	if len(stopped) == 0 {
		return nil
	}
	err := fmt.Errorf("%d of %d partitions are stopped: %s", len(stopped), len(s.workers), stopped[0])
	if len(stopped) == len(s.workers) {
		return err
	}
	return telemetry.Degraded(err)
}

// Running returns the number of partitions whose commands this worker is committing.
func (s *Service) Running() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	running := 0
	for _, w := range s.workers {
		if w.Running() {
			running++
		}
	}
	return running
}

// startPartition starts the work on a partition. It calls ended after that work has ended.
func (s *Service) startPartition(p ids.Partition, ended func()) lease.Assignment {
	ctx, cancel := context.WithCancel(context.Background()) // cancelled by the worker's Stop, after the stop timeout
	s.mu.Lock()
	if s.acknowledged[p] == nil {
		s.acknowledged[p] = &takeover.Acknowledged{}
	}
	o := partition.NewWorker(partition.Deps{
		Name: s.worker, Partition: p, Partitions: s.deps.Broker.Partitions, Config: s.cfg.ofPartition(),
		Bus: s.deps.Bus, JS: s.js, History: s.deps.History, EnsureStream: s.ensureStreams, HandOver: s.installation.handOver,
		Acknowledged: s.acknowledged[p], Log: s.deps.Log.With("partition", p), Metrics: s.metrics,
		Recorder: s.recorder, Tracer: s.tracer, Now: s.deps.Now,
	}, cancel)
	s.workers[p] = o
	s.mu.Unlock()
	s.metrics.Owned.Inc()
	s.running.Go(func() {
		defer cancel()
		o.Run(ctx)
		s.mu.Lock()
		if s.workers[p] == o {
			delete(s.workers, p)
		}
		s.mu.Unlock()
		s.metrics.Owned.Dec()
		ended()
	})
	return o
}

// announceTimeout is the time limit for sending the notice of released partitions.
const announceTimeout = 10 * time.Second

// announceReleased wakes workers that look for partitions. Errors are ignored, because workers also look periodically.
func (s *Service) announceReleased() {
	if err := s.deps.Bus.PublishMsg(&nats.Msg{Subject: broker.ReleasedSubject}); err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), announceTimeout)
		defer cancel()
		_ = s.deps.Bus.FlushWithContext(ctx)
	}
}

// watchConnection restarts the work on all partitions after the connection to NATS was lost: messages that were published
// just before the loss may not have arrived.
func (s *Service) watchConnection(ctx context.Context) {
	changes := s.deps.NATS.StatusChanged(nats.CONNECTED)
	defer s.deps.NATS.RemoveStatusListener(changes)
	for {
		select {
		case <-ctx.Done():
			return
		case _, open := <-changes:
			if !open {
				return
			}
			s.mu.Lock()
			for _, o := range s.workers {
				o.Resync()
			}
			s.mu.Unlock()
			s.leases.RenewNow()
		}
	}
}

// ensureStreams creates the streams of all partitions, unless the stream of this partition was created in the meantime.
func (s *Service) ensureStreams(ctx context.Context, partition ids.Partition) error {
	s.making.Lock()
	defer s.making.Unlock()
	if _, err := s.js.Stream(ctx, broker.StreamName(partition)); !errors.Is(err, jetstream.ErrStreamNotFound) {
		return err
	}
	return broker.EnsureStreams(ctx, s.js, s.deps.Broker)
}

func (s *Service) setSubmitter(submitter *broker.Submitter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.submitter = submitter
}

// workerName returns a name that is unique to this start of the process.
func workerName(name string) string {
	if name == "" {
		name, _ = os.Hostname() // without a host name the random part is enough
	}
	name = strings.Map(func(r rune) rune {
		if r < 0x80 && conversation.ValidUser(string(r)) {
			return r
		}
		return '-'
	}, name)
	var suffix [6]byte
	_, _ = rand.Read(suffix[:]) // never fails (crypto/rand)
	return name[:min(len(name), 48)] + "-" + hex.EncodeToString(suffix[:])
}
