package gateway

import (
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/runnelhq/runnel/services/gateway/backoff"
	"github.com/runnelhq/runnel/services/gateway/link/outbox"
	"github.com/runnelhq/runnel/services/gateway/session"
)

// maxReconnectDelay bounds how long a client may be asked to stay away: for its user that is an outage.
const maxReconnectDelay = 30 * time.Second

// drainPlan spreads a drain. Clients come back elsewhere one after the other at a rate, each at a moment of its own.
// Its connection is closed at that moment if the window is long enough for all; otherwise connections are closed faster, evenly
// over the window, and each client is asked to wait for its moment. For those who wait that is an outage, so where the rate
// would make it too long, it is the rate that gives way.
type drainPlan struct {
	count  int
	rate   int
	window time.Duration
}

// back is how long it takes until all have come back.
func (f drainPlan) back() time.Duration {
	return min(time.Duration(f.count)*time.Second/time.Duration(max(f.rate, 1)), f.window+maxReconnectDelay)
}

// over is how long closing takes.
func (f drainPlan) over() time.Duration { return min(f.back(), f.window) }

// closing is when the i-th connection is closed, counted from the beginning.
func (f drainPlan) closing(i int) time.Duration {
	return f.over() * time.Duration(i) / time.Duration(max(f.count, 1))
}

// delay is what the i-th client is asked to wait when it is closed after so long.
func (f drainPlan) delay(i int, elapsed time.Duration) time.Duration {
	return max(f.back()*time.Duration(i)/time.Duration(max(f.count, 1))-elapsed, 0)
}

// drain closes sessions with a request to go elsewhere, spread over time. It takes the window at most, and then outbox.CloseGrace
// and a second for those that do not answer. left shows how many are still to be closed.
func (f drainPlan) drain(sessions []*session.Session, left prometheus.Gauge, log *slog.Logger) {
	if len(sessions) == 0 {
		return
	}
	f.count = len(sessions)
	log.Info("draining", "connections", f.count, "over", f.over().Round(time.Millisecond).String())
	begun := time.Now()
	for i, s := range sessions {
		if wait := f.closing(i) - time.Since(begun); wait > 0 {
			backoff.Pause(nil, wait)
		}
		left.Set(float64(len(sessions) - i))
		s.GoAway(f.delay(i, time.Since(begun)))
	}
	left.Set(0)
	deadline := time.NewTimer(outbox.CloseGrace + time.Second)
	defer deadline.Stop()
	for _, s := range sessions {
		select {
		case <-s.Done():
		case <-deadline.C:
			return // the readers' deadlines end the rest
		}
	}
}
