package rpc

import (
	"context"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/runnelhq/runnel/pkg/telemetry"
)

// queueFactor is how many calls may wait for each call that may be in flight, and queueTime how long: a burst is served in turn,
// and a queue that only grows is refused.
const (
	queueFactor = 8
	queueTime   = time.Second
)

// bulkhead limits the calls in flight. Further calls wait for a short time; calls beyond the queue are refused at once.
type bulkhead struct {
	slots    chan struct{}
	waiting  atomic.Int64
	inflight prometheus.Gauge
}

func newBulkhead(size int, inflight prometheus.Gauge) *bulkhead {
	return &bulkhead{slots: make(chan struct{}, size), inflight: inflight}
}

// enter takes a slot, which leave releases. It returns false if it got none.
func (b *bulkhead) enter(ctx context.Context) bool {
	select {
	case b.slots <- struct{}{}:
	default:
		if !b.wait(ctx) {
			return false
		}
	}
	b.inflight.Inc()
	return true
}

func (b *bulkhead) wait(ctx context.Context) bool {
	defer b.waiting.Add(-1)
	if b.waiting.Add(1) > queueFactor*int64(cap(b.slots)) {
		return false
	}
	patience := time.NewTimer(queueTime)
	defer patience.Stop()
	select {
	case b.slots <- struct{}{}:
		return true
	case <-patience.C:
		return false
	case <-ctx.Done():
		return false
	}
}

func (b *bulkhead) leave() {
	<-b.slots
	b.inflight.Dec()
}

// inflightGauge counts calls in flight: on the client side by called service, on the server side without that label.
func inflightGauge(tel *telemetry.Telemetry, side, service string) prometheus.Gauge {
	return register(tel.Registry, prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "runnel_rpc_inflight", Help: "Calls under way: side client by the service called, side server by the service that answers.",
	}, []string{"side", "service"})).WithLabelValues(side, service)
}

// handlers limits the calls that a server handles at once, for each method separately: a flood of reads must not block the
// renewal of a lease.
type handlers struct {
	size    int
	methods map[string]*bulkhead // written before the first call only
	tel     *telemetry.Telemetry
}

func (h *handlers) add(desc *grpc.ServiceDesc) {
	name := desc.ServiceName[strings.LastIndexByte(desc.ServiceName, '.')+1:]
	inflight := inflightGauge(h.tel, "server", name)
	for _, m := range desc.Methods {
		h.methods[fullMethod(desc, m.MethodName)] = newBulkhead(h.size, inflight)
	}
}

func (h *handlers) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	b := h.methods[info.FullMethod]
	if b == nil { // gRPC's own services
		return handle(ctx, request)
	}
	if !b.enter(ctx) {
		// Not RESOURCE_EXHAUSTED, which means that the request is too large: callers must not blame their request for this refusal.
		return nil, status.Error(codes.Unavailable, "too many calls at once; try again later")
	}
	defer b.leave()
	return handle(ctx, request)
}
