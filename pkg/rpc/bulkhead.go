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

// queueFactor is how many calls may wait per call that may be in flight. queueTime is how long a call may wait. A burst
// is served in turn; if the queue only grows, calls are refused.
const (
	queueFactor = 8
	queueTime   = time.Second
)

// bulkhead limits the calls in flight. Further calls wait for a short time in a queue. If the queue is full, calls are
// refused at once.
type bulkhead struct {
	slots    chan struct{}
	waiting  atomic.Int64
	inflight prometheus.Gauge
}

func newBulkhead(size int, inflight prometheus.Gauge) *bulkhead {
	return &bulkhead{slots: make(chan struct{}, size), inflight: inflight}
}

// enter takes a slot; leave releases it. It returns false if it got no slot.
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

// inflightGauge returns the gauge of the calls in flight. On the client side it has the called service as a label.
func inflightGauge(tel *telemetry.Telemetry, side, service string) prometheus.Gauge {
	return register(tel.Registry, prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "runnel_rpc_inflight", Help: "Calls under way: side client by the service called, side server by the service that answers.",
	}, []string{"side", "service"})).WithLabelValues(side, service)
}

// handlers limits the calls that a server handles at once, separately for each method: a flood of reads must not block
// the renewal of a lease.
type handlers struct {
	size    int
	methods map[string]*bulkhead // written only before the first call
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
	if b == nil { // the method belongs to gRPC's own services
		return handle(ctx, request)
	}
	if !b.enter(ctx) {
		// Not RESOURCE_EXHAUSTED: that code tells callers that their request is too large.
		return nil, status.Error(codes.Unavailable, "too many calls at once; try again later")
	}
	defer b.leave()
	return handle(ctx, request)
}
