package rpc

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sony/gobreaker/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/runnelhq/runnel/pkg/telemetry"
)

const (
	// The breaker opens when at least half of the calls of the last few seconds failed, and these were not just a handful.
	breakerWindow, breakerBucket = 4 * time.Second, 500 * time.Millisecond
	breakerLeast                 = 20
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
	breaker  *gobreaker.TwoStepCircuitBreaker[struct{}]
	bulkhead *bulkhead
	timeout  time.Duration
	// open and full count calls that were not made.
	open, full prometheus.Counter
}

func newBreaker(service string, cfg ClientConfig, tel *telemetry.Telemetry) *breaker {
	state := register(tel.Registry, prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "runnel_rpc_breaker_state", Help: "Whether a service is called: 0 yes, 1 one call tries it, 2 no, it failed too often.",
	}, []string{"service"})).WithLabelValues(service)
	rejected := register(tel.Registry, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "runnel_rpc_breaker_rejected_total", Help: "Calls that were not made: open, since the service failed too often; full, since too many were under way.",
	}, []string{"service", "reason"}))
	return &breaker{
		bulkhead: newBulkhead(cfg.MaxInFlight, inflightGauge(tel, "client", service)),
		timeout:  cfg.Timeout,
		open:     rejected.WithLabelValues(service, "open"),
		full:     rejected.WithLabelValues(service, "full"),
		breaker: gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
			Name: service, MaxRequests: 1, Interval: breakerWindow, BucketPeriod: breakerBucket, Timeout: breakerPause,
			ReadyToTrip: func(c gobreaker.Counts) bool {
				return c.TotalFailures >= breakerLeast && c.TotalFailures >= c.TotalSuccesses
			},
			IsSuccessful:  func(err error) bool { return !isFailure(err) },
			IsExcluded:    isSilent,
			OnStateChange: func(name string, _, to gobreaker.State) { report(tel.Log, state, name, to) },
		}),
	}
}

func report(log *slog.Logger, gauge prometheus.Gauge, service string, to gobreaker.State) {
	switch to {
	case gobreaker.StateClosed:
		gauge.Set(0)
		log.Info("calling a service again", "service", service)
	case gobreaker.StateHalfOpen:
		gauge.Set(1)
	case gobreaker.StateOpen:
		gauge.Set(2)
		log.Warn("a service fails too often; not calling it for a moment", "service", service)
	}
}

// isFailure tells the answers of a service that is away, hangs or has too much to do. Others are answers.
func isFailure(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted:
		return true
	default:
		return false
	}
}

// errOpen and errFull say that a call was not made, which is no answer of the service.
var (
	errOpen = status.Error(codes.Unavailable, "the service failed too often just now; it is tried again in a moment")
	errFull = status.Error(codes.ResourceExhausted, "too many calls of the service are under way; try again later")
)

// isSilent tells outcomes that say nothing about the service.
func isSilent(err error) bool {
	return errors.Is(err, errOpen) || errors.Is(err, errFull) || status.Code(err) == codes.Canceled
}

func (b *breaker) unary(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	if isGRPC(method) { // whoever asks for health wants to know, not to be spared
		return invoke(ctx, method, request, reply, conn, options...)
	}
	done, err := b.breaker.Allow()
	if err != nil {
		b.open.Inc()
		return errOpen
	}
	probing := b.breaker.State() == gobreaker.StateHalfOpen
	leave, err := b.enter(ctx, probing)
	if err != nil {
		done(err)
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
	done(err)
	return err
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
	if b.breaker.State() == gobreaker.StateOpen { // since it began to wait
		b.bulkhead.leave()
		b.open.Inc()
		return nil, errOpen
	}
	return b.bulkhead.leave, nil
}
