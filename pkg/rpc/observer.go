package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/runnelhq/runnel/pkg/telemetry"
)

// errInternal is the error that callers get for a defect; the log contains the details.
var errInternal = status.Error(codes.Internal, "internal error")

// observer is between the transport and the services. It counts and times calls. Panics, and errors without a gRPC code
// (which may quote SQL or host names), must not reach the caller: observer logs them and returns INTERNAL.
type observer struct {
	log     *slog.Logger
	handled *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	methods map[string]method // written only by add, before the first call
}

// method holds the metrics of one method. They are looked up once.
type method struct {
	ok      prometheus.Counter
	seconds prometheus.Observer
}

func newObserver(tel *telemetry.Telemetry) *observer {
	return &observer{
		log:     tel.Log,
		methods: map[string]method{},
		handled: register(tel.Registry, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "runnel_rpc_handled_total", Help: "Calls that were answered, by gRPC code.",
		}, []string{"method", "code"})),
		seconds: register(tel.Registry, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "runnel_rpc_handling_seconds", Help: "Time from a call's arrival to its answer.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10},
		}, []string{"method"})),
	}
}

// register adds a collector, or returns the existing one. A process may have several servers that share a registry.
func register[C prometheus.Collector](registry *prometheus.Registry, collector C) C {
	var taken prometheus.AlreadyRegisteredError
	if err := registry.Register(collector); errors.As(err, &taken) {
		if existing, ok := taken.ExistingCollector.(C); ok {
			return existing
		}
	}
	return collector
}

func (o *observer) add(desc *grpc.ServiceDesc) {
	for _, m := range desc.Methods {
		name := fullMethod(desc, m.MethodName)
		o.methods[name] = method{
			ok:      o.handled.WithLabelValues(name, codes.OK.String()),
			seconds: o.seconds.WithLabelValues(name),
		}
	}
}

func fullMethod(desc *grpc.ServiceDesc, method string) string {
	return "/" + desc.ServiceName + "/" + method
}

func (o *observer) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (reply any, err error) {
	begun := time.Now()
	defer func() {
		if value := recover(); value != nil {
			reply, err = nil, o.panicked(ctx, info.FullMethod, value)
		}
		o.count(info.FullMethod, time.Since(begun), err)
	}()
	reply, err = handle(ctx, request)
	if err != nil {
		return nil, o.refine(ctx, info.FullMethod, err)
	}
	return reply, nil
}

func (o *observer) stream(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = o.panicked(stream.Context(), info.FullMethod, value)
		}
	}()
	if err := handle(service, stream); err != nil {
		return o.refine(stream.Context(), info.FullMethod, err)
	}
	return nil
}

func (o *observer) count(name string, took time.Duration, err error) {
	m, known := o.methods[name]
	if !known { // the method belongs to gRPC's own services
		return
	}
	m.seconds.Observe(took.Seconds())
	if err == nil {
		m.ok.Inc()
		return
	}
	o.handled.WithLabelValues(name, status.Code(err).String()).Inc()
}

// refine keeps errors that have a gRPC code, maps context errors to their codes, and hides all other errors.
func (o *observer) refine(ctx context.Context, method string, err error) error {
	if s, ok := status.FromError(err); ok {
		return s.Err()
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return status.FromContextError(err).Err()
	}
	o.log.ErrorContext(ctx, "a call failed with an error that has no gRPC code", "method", method, "error", err)
	return errInternal
}

func (o *observer) panicked(ctx context.Context, method string, value any) error {
	o.log.ErrorContext(ctx, "a call panicked", "method", method, "panic", fmt.Sprint(value), "stack", string(debug.Stack()))
	return errInternal
}
