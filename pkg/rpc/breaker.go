package rpc

import (
	"context"
	"sync"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/runnelhq/runnel/pkg/telemetry"
)

const (
	// The breaker opens when at least half of the calls that ended in the last few seconds failed, and these were not just a
	// handful.
	breakerWindow = 4 * time.Second
	breakerShare  = 0.5
	breakerLeast  = 20
	// breakerPause and probeTimeout together keep a service from being taken for away 3 s after it is back: a call that tries
	// whether it is may hang as the others did, and then another one tries.
	breakerPause = 500 * time.Millisecond
	probeTimeout = 2 * time.Second
)

// breaker stands before every call of one connection: it gives calls a deadline, bounds those in flight, and stops
// calling a service that fails or hangs, so that callers learn at once and the service gets room to recover. It does so for
// each method by itself: that reads fail, of which there may be too many, must not keep commits and leases from a
// service that would carry them out.
type breaker struct {
	service  string
	cfg      ClientConfig
	tel      *telemetry.Telemetry
	inflight prometheus.Gauge
	// open and full count calls that were not made.
	open, full prometheus.Counter

	mu    sync.Mutex
	gates map[string]*gate // by method, of which a program has a few
}

// gate is what calls of one method pass.
type gate struct {
	*circuit

	bulkhead *bulkhead
}

func newBreaker(service string, cfg ClientConfig, tel *telemetry.Telemetry) *breaker {
	rejected := register(tel.Registry, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "runnel_rpc_breaker_rejected_total", Help: "Calls that were not made: open, since the method failed too often; full, since too many were under way.",
	}, []string{"service", "reason"}))
	b := &breaker{
		service: service, cfg: cfg, tel: tel, gates: map[string]*gate{},
		inflight: inflightGauge(tel, "client", service),
		open:     rejected.WithLabelValues(service, "open"),
		full:     rejected.WithLabelValues(service, "full"),
	}
	register(tel.Registry, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "runnel_rpc_breaker_state", Help: "Whether a service is called: 0 yes; 1 no, a method of it that is asked for failed too often; 2 one call tries it.",
		ConstLabels: prometheus.Labels{"service": service},
	}, func() float64 { return float64(b.state()) }))
	return b
}

func (b *breaker) gate(method string) *gate {
	b.mu.Lock()
	defer b.mu.Unlock()
	g := b.gates[method]
	if g == nil {
		log := b.tel.Log.With("service", b.service, "method", method)
		g = &gate{newCircuit(log), newBulkhead(b.cfg.MaxInFlight, b.inflight)}
		b.gates[method] = g
	}
	return g
}

// state is that of the method that is worst off.
func (b *breaker) state() circuitbreaker.State {
	b.mu.Lock()
	defer b.mu.Unlock()
	worst := circuitbreaker.ClosedState
	for _, g := range b.gates {
		switch g.state() {
		case circuitbreaker.OpenState:
			return circuitbreaker.OpenState
		case circuitbreaker.HalfOpenState:
			worst = circuitbreaker.HalfOpenState
		case circuitbreaker.ClosedState:
		}
	}
	return worst
}

// errOpen and errFull say that a call was not made, which is no answer of the service; errSlow that a call that tries the
// service has none yet.
var (
	errSlow = status.Error(codes.DeadlineExceeded, "no answer yet")
	errOpen = status.Error(codes.Unavailable, "the service failed too often just now; it is tried again in a moment")
	errFull = status.Error(codes.Unavailable, "too many calls of the service are under way; try again later")
)

func (b *breaker) unary(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	if isGRPC(method) { // whoever asks for health wants to know, not to be spared
		return invoke(ctx, method, request, reply, conn, options...)
	}
	g := b.gate(method)
	if wait := waitOf(request); wait > 0 {
		return b.poll(ctx, g, wait, func(ctx context.Context) error { return invoke(ctx, method, request, reply, conn, options...) })
	}
	call, admitted := g.admit()
	if !admitted {
		b.open.Inc()
		return errOpen
	}
	leave, err := b.enter(ctx, g, call)
	if err != nil {
		return err
	}
	defer leave()
	if call.tries {
		// It keeps the deadline that its caller gave it, for a service that is slow is not away. But others may try meanwhile.
		impatience := time.AfterFunc(probeTimeout, func() { g.ended(call, errSlow) })
		defer impatience.Stop()
	}
	ctx, cancel := b.limit(ctx, 0)
	defer cancel()
	err = invoke(ctx, method, request, reply, conn, options...)
	g.ended(call, err)
	return err
}

// limit gives a call a deadline unless its caller did: the timeout, and what the service may wait on purpose.
func (b *breaker) limit(ctx context.Context, wait time.Duration) (context.Context, context.CancelFunc) {
	if _, limited := ctx.Deadline(); limited {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, b.cfg.Timeout+wait)
}

// enter takes a place among the calls in flight. The one that tries a service needs none: those that hang may hold them all.
func (b *breaker) enter(ctx context.Context, g *gate, call attempt) (leave func(), err error) {
	if call.tries {
		return func() {}, nil
	}
	if !g.bulkhead.enter(ctx) {
		return nil, b.notEntered(ctx)
	}
	if g.isOpen() { // since it began to wait
		g.bulkhead.leave()
		b.open.Inc()
		return nil, errOpen
	}
	return g.bulkhead.leave, nil
}

// notEntered is why a call found no place among those in flight.
func (b *breaker) notEntered(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return status.FromContextError(err).Err()
	}
	b.full.Inc()
	return errFull
}
