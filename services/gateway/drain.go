package gateway

import (
	"time"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"

	"github.com/runnelhq/runnel/pkg/errcode"
)

// maxReconnectDelay bounds how long a client may be asked to stay away: for its user that is an outage.
const maxReconnectDelay = 30 * time.Second

// farewells is the plan of a drain. Clients come back elsewhere one after the other at a rate, each at a moment of its own.
// Its connection is closed at that moment if the window is long enough for all; otherwise connections are closed faster, evenly
// over the window, and each client is asked to wait for its moment. For those who wait that is an outage, so where the rate
// would make it too long, it is the rate that gives way.
type farewells struct {
	count  int
	rate   int
	window time.Duration
}

// back is how long it takes until all have come back.
func (f farewells) back() time.Duration {
	return min(time.Duration(f.count)*time.Second/time.Duration(max(f.rate, 1)), f.window+maxReconnectDelay)
}

// over is how long closing takes.
func (f farewells) over() time.Duration { return min(f.back(), f.window) }

// closing is when the i-th connection is closed, counted from the beginning.
func (f farewells) closing(i int) time.Duration {
	return f.over() * time.Duration(i) / time.Duration(max(f.count, 1))
}

// delay is what the i-th client is asked to wait when it is closed after so long.
func (f farewells) delay(i int, elapsed time.Duration) time.Duration {
	return max(f.back()*time.Duration(i)/time.Duration(max(f.count, 1))-elapsed, 0)
}

// drain closes all connections with a request to go elsewhere, spread over time. It takes the configured time at most, and
// then closeGrace and a second for those that do not answer.
func (g *Gateway) drain() {
	g.gate.Close()
	_ = g.listener.Close() // a second close by the server changes nothing
	conns := g.connections()
	if len(conns) == 0 {
		return
	}
	plan := farewells{count: len(conns), rate: g.cfg.DrainRate, window: g.cfg.Drain}
	g.log.Info("draining", "connections", len(conns), "over", plan.over().Round(time.Millisecond).String())
	begun := time.Now()
	for i, c := range conns {
		if wait := plan.closing(i) - time.Since(begun); wait > 0 {
			pause(nil, wait)
		}
		g.metrics.DrainLeft.Set(float64(len(conns) - i))
		c.goAway(plan.delay(i, time.Since(begun)))
	}
	g.metrics.DrainLeft.Set(0)
	deadline := time.NewTimer(closeGrace + time.Second)
	defer deadline.Stop()
	for _, c := range conns {
		select {
		case <-c.done:
		case <-deadline.C:
			return // g.cancel and the readers' deadlines end the rest
		}
	}
}

// goAway asks the client to reconnect elsewhere after a while, and closes the connection.
func (c *conn) goAway(delay time.Duration) {
	c.send(c.encode(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_GoAway{GoAway: &clientv1.GoAway{ReconnectDelayMs: uint32(delay.Milliseconds())}}}))
	c.close(errcode.CloseGoingAway, "the gateway is being stopped")
}
