package rpc

import (
	"context"
	"sync/atomic"
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
	// whether it is may hang as the others did.
	breakerPause = 500 * time.Millisecond
	probeTimeout = 2 * time.Second
)

// breaker stands before every call of one connection: it gives calls a deadline, bounds those in flight, and stops
// calling a service that fails or hangs, so that callers learn at once and the service gets room to recover.
//
//	closed ──half of the calls failed──▶ open ──pause──▶ half open: one call tries
//	  ▲                                   ▲                  │ failed │ succeeded
//	  │                                   └──────────────────┘        │
//	  └───────────────────────────────────────────────────────────────┘
type breaker struct {
	circuit  circuitbreaker.CircuitBreaker[any]
	changes  atomic.Uint64 // of the circuit's state: what was begun before the last one says nothing about now
	bulkhead *bulkhead
	timeout  time.Duration
	// open and full count calls that were not made.
	open, full prometheus.Counter
}

func newBreaker(service string, cfg ClientConfig, tel *telemetry.Telemetry) *breaker {
	rejected := register(tel.Registry, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "runnel_rpc_breaker_rejected_total", Help: "Calls that were not made: open, since the service failed too often; full, since too many were under way.",
	}, []string{"service", "reason"}))
	b := &breaker{
		bulkhead: newBulkhead(cfg.MaxInFlight, inflightGauge(tel, "client", service)),
		timeout:  cfg.Timeout,
		open:     rejected.WithLabelValues(service, "open"),
		full:     rejected.WithLabelValues(service, "full"),
	}
	b.circuit = circuitbreaker.NewBuilder[any]().
		WithFailureRateThreshold(breakerShare, breakerLeast, breakerWindow).
		WithSuccessThreshold(1).
		WithDelay(breakerPause).
		OnStateChanged(func(event circuitbreaker.StateChangedEvent) {
			b.changes.Add(1)
			switch event.NewState {
			case circuitbreaker.OpenState:
				tel.Log.Warn("a service fails too often; not calling it for a moment", "service", service)
			case circuitbreaker.ClosedState:
				tel.Log.Info("calling a service again", "service", service)
			case circuitbreaker.HalfOpenState:
			}
		}).Build()
	register(tel.Registry, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "runnel_rpc_breaker_state", Help: "Whether a service is called: 0 yes, 1 no, it failed too often, 2 one call tries it.",
		ConstLabels: prometheus.Labels{"service": service},
	}, func() float64 { return float64(b.circuit.State()) }))
	return b
}

// isFailure tells the answers of a service that is away, hangs or has too much to do. Others are answers.
func isFailure(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded:
		return true
	default:
		return false
	}
}

// errOpen and errFull say that a call was not made, which is no answer of the service.
var (
	errOpen = status.Error(codes.Unavailable, "the service failed too often just now; it is tried again in a moment")
	errFull = status.Error(codes.Unavailable, "too many calls of the service are under way; try again later")
)

func (b *breaker) unary(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	if isGRPC(method) { // whoever asks for health wants to know, not to be spared
		return invoke(ctx, method, request, reply, conn, options...)
	}
	if !b.circuit.TryAcquirePermit() {
		b.open.Inc()
		return errOpen
	}
	began, probing := b.changes.Load(), b.circuit.IsHalfOpen()
	leave, err := b.enter(ctx, probing)
	if err != nil {
		return err
	}
	defer leave()
	if _, limited := ctx.Deadline(); probing || !limited {
		timeout := b.timeout
		if probing {
			timeout = probeTimeout
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout) // a shorter one of the caller's holds
		defer cancel()
	}
	err = invoke(ctx, method, request, reply, conn, options...)
	if b.changes.Load() == began {
		b.record(err, probing)
	}
	return err
}

// record counts the outcome of a call.
func (b *breaker) record(err error, probing bool) {
	switch {
	case isFailure(err):
		b.circuit.RecordFailure()
	case status.Code(err) != codes.Canceled:
		b.circuit.RecordSuccess()
	case probing: // the caller went away, which says nothing; but somebody else has to try then
		b.circuit.RecordFailure()
	}
}

// enter takes a place among the calls in flight. The one that tries a service needs none: those that hang may hold them all.
func (b *breaker) enter(ctx context.Context, probing bool) (leave func(), err error) {
	if probing {
		return func() {}, nil
	}
	if !b.bulkhead.enter(ctx) {
		if err := ctx.Err(); err != nil {
			return nil, status.FromContextError(err).Err()
		}
		b.full.Inc()
		return nil, errFull
	}
	if b.circuit.IsOpen() { // since it began to wait
		b.bulkhead.leave()
		b.open.Inc()
		return nil, errOpen
	}
	return b.bulkhead.leave, nil
}
