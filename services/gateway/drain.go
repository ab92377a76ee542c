package gateway

import (
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/runnelhq/runnel/services/gateway/backoff"
	"github.com/runnelhq/runnel/services/gateway/link/outbox"
	"github.com/runnelhq/runnel/services/gateway/session"
)

// maxReconnectDelay is the longest time that a client may be asked to wait before it reconnects. For its user this wait
// is an outage.
const maxReconnectDelay = 30 * time.Second

// drainPlan spreads a drain over time. Clients reconnect to other gateways one after the other, at a fixed rate; each has its own
// reconnect time. If the window is long enough for all clients, each connection is closed at its reconnect time. Otherwise
// connections are closed faster, evenly over the window, and each client is asked to wait until its reconnect time. That wait is
// an outage for its user, so if the rate would make the wait too long, the rate is exceeded.
type drainPlan struct {
	count  int
	rate   int
	window time.Duration
}

// back is how long it takes until all clients have reconnected.
func (f drainPlan) back() time.Duration {
	return min(time.Duration(f.count)*time.Second/time.Duration(max(f.rate, 1)), f.window+maxReconnectDelay)
}

// over is how long it takes to close all connections.
func (f drainPlan) over() time.Duration { return min(f.back(), f.window) }

// closing is when the i-th connection is closed, measured from the start of the drain.
func (f drainPlan) closing(i int) time.Duration {
	return f.over() * time.Duration(i) / time.Duration(max(f.count, 1))
}

// delay is how long the i-th client is asked to wait if its connection is closed when elapsed has passed since the start
// of the drain.
func (f drainPlan) delay(i int, elapsed time.Duration) time.Duration {
	return max(f.back()*time.Duration(i)/time.Duration(max(f.count, 1))-elapsed, 0)
}

// drain closes sessions, spread over time, and asks their clients to reconnect elsewhere. It takes at most the window, plus
// outbox.CloseGrace and one second for clients that do not answer. left is set to the number of sessions still to be closed.
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
	defer func() {
		log.Info("drained", "connections", f.count, "took", time.Since(begun).Round(time.Millisecond).String())
	}()
	for _, s := range sessions {
		select {
		case <-s.Done():
		case <-deadline.C:
			return // the remaining connections end at their readers' deadlines
		}
	}
}
