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
	// breakerWindow is the time window for the failure rate. The breaker opens if at least half of the calls that ended
	// in the window failed, and if there were more than a few calls.
	breakerWindow = 4 * time.Second
	breakerShare  = 0.5
	breakerLeast  = 20
	// breakerPause and probeTimeout together bound the time for which a recovered service still counts as down to 3 s. A
	// probe call may hang like the earlier calls; after probeTimeout another probe is made.
	breakerPause = 500 * time.Millisecond
	probeTimeout = 2 * time.Second
)

// breaker wraps every call of one connection. It sets deadlines, limits the calls in flight, and stops calls to a service
// that fails or hangs. Callers then get an error at once, and the service can recover. Each method has a separate
// breaker: failing reads, of which there may be very many, must not block commits and leases that the service could still
// carry out.
type breaker struct {
	service  string
	cfg      ClientConfig
	tel      *telemetry.Telemetry
	inflight prometheus.Gauge
	// open and full count the calls that were not made.
	open, full prometheus.Counter

	mu    sync.Mutex
	gates map[string]*gate // by method; a program calls only a few methods
}

// gate is the breaker's state for one method.
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

// state returns the worst state of all methods.
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

// errOpen and errFull mean that a call was not made; they are not answers of the service. errSlow means that a probe call
// is not answered yet.
var (
	errSlow = status.Error(codes.DeadlineExceeded, "no answer yet")
	errOpen = status.Error(codes.Unavailable, "the service failed too often just now; it is tried again in a moment")
	errFull = status.Error(codes.Unavailable, "too many calls of the service are in flight; try again later")
)

func (b *breaker) unary(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	if isGRPC(method) { // health checks must always reach the service
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
		// The call keeps its caller's deadline, because a slow service is not down. But after probeTimeout, other probes
		// are allowed.
		impatience := time.AfterFunc(probeTimeout, func() { g.ended(call, errSlow) })
		defer impatience.Stop()
	}
	ctx, cancel := b.limit(ctx, 0)
	defer cancel()
	err = invoke(ctx, method, request, reply, conn, options...)
	g.ended(call, err)
	return err
}

// limit sets a deadline for a call that has none: the timeout, plus the time that the service may wait on purpose.
func (b *breaker) limit(ctx context.Context, wait time.Duration) (context.Context, context.CancelFunc) {
	if _, limited := ctx.Deadline(); limited {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, b.cfg.Timeout+wait)
}

// enter takes a slot among the calls in flight. A probe call needs no slot, because hanging calls may hold all slots.
func (b *breaker) enter(ctx context.Context, g *gate, call attempt) (leave func(), err error) {
	if call.tries {
		return func() {}, nil
	}
	if !g.bulkhead.enter(ctx) {
		return nil, b.notEntered(ctx)
	}
	if g.isOpen() { // the circuit opened while the call waited for a slot
		g.bulkhead.leave()
		b.open.Inc()
		return nil, errOpen
	}
	return g.bulkhead.leave, nil
}

// notEntered returns the reason why a call got no slot among those in flight.
func (b *breaker) notEntered(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return status.FromContextError(err).Err()
	}
	b.full.Inc()
	return errFull
}
