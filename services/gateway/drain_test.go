package gateway

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// busiest returns the largest number of clients that reconnect within any second, if each is closed as planned.
func (f drainPlan) busiest() int {
	back := make([]time.Duration, f.count)
	for i := range back {
		back[i] = f.closing(i) + f.delay(i, f.closing(i))
	}
	most, first := 0, 0
	for i := range back {
		for back[i]-back[first] >= time.Second {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

func TestADrainSpreadsClientsAtItsRate(t *testing.T) {
	const window = 10 * time.Second
	for name, c := range map[string]struct {
		plan    drainPlan
		over    time.Duration // until the last connection is closed
		back    time.Duration // until the last client has reconnected
		longest time.Duration // about how long a client is asked to wait
		busiest int           // clients that reconnect in one second
	}{
		"few":            {drainPlan{10, 500, window}, 20 * time.Millisecond, 20 * time.Millisecond, 0, 10},
		"as many as fit": {drainPlan{5000, 500, window}, window, window, 0, 500},
		"twice as many":  {drainPlan{10_000, 500, window}, window, 2 * window, 10 * time.Second, 500},
		"far too many":   {drainPlan{100_000, 500, window}, window, window + maxReconnectDelay, maxReconnectDelay, 2500},
		"no time at all": {drainPlan{5000, 500, 0}, 0, window, window, 500},
		"no rate":        {drainPlan{2, 0, time.Second}, time.Second, 2 * time.Second, time.Second, 1},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.over, c.plan.over())
			require.Equal(t, c.back, c.plan.back())
			require.Equal(t, c.busiest, c.plan.busiest())
			require.LessOrEqual(t, c.plan.over(), c.plan.window, "all connections are closed within the window")
			longest := time.Duration(0)
			for i := range c.plan.count {
				longest = max(longest, c.plan.delay(i, c.plan.closing(i)))
			}
			require.LessOrEqual(t, longest, c.longest)
			require.GreaterOrEqual(t, longest, c.longest*(time.Duration(c.plan.count)-1)/time.Duration(c.plan.count))
			last := c.plan.count - 1
			require.Zero(t, c.plan.delay(last, time.Hour), "a client that is closed late is asked to wait less")
		})
	}
}
