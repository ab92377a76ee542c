package torture

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestFaultsThatHitTheSameWaitForEachOther(t *testing.T) {
	for _, test := range []struct {
		a, b Fault
		same bool
	}{
		{Fault{Kind: FaultKill, Part: "nats-0"}, Fault{Kind: FaultKill, Part: "nats-0"}, true},
		{Fault{Kind: FaultKill, Part: "nats-0"}, Fault{Kind: FaultKill, Part: "nats-1"}, false},
		{Fault{Kind: FaultKill, Part: "nats-0"}, Fault{Kind: FaultLeader, Part: "nats"}, true},
		{Fault{Kind: FaultRoll, Part: "gateway"}, Fault{Kind: FaultPause, Part: "gateway-1"}, true},
		{Fault{Kind: FaultRoll, Part: "gateway"}, Fault{Kind: FaultKill, Part: "delivery-0"}, false},
		{Fault{Kind: FaultNetwork, Part: "gateway-0", Other: "nats"}, Fault{Kind: FaultKill, Part: "gateway-0"}, false},
		{Fault{Kind: FaultNetwork, Part: "gateway-0", Other: "nats"}, Fault{Kind: FaultNetwork, Part: "delivery", Other: "nats"}, true},
		{Fault{Kind: FaultSlow, Part: "gateway-0"}, Fault{Kind: FaultStorm, Part: "clients"}, true},
		{Fault{Kind: FaultFull, Part: "sqlite"}, Fault{Kind: FaultKill, Part: "history-0"}, true},
		{Fault{Kind: FaultPower, Part: "nats"}, Fault{Kind: FaultKill, Part: "gateway-0"}, true},
	} {
		var c claims
		release, err := c.take(t.Context(), test.a.claims())
		require.NoError(t, err)
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = c.take(gone, test.b.claims())
		require.Equal(t, test.same, err != nil, "%s and %s", test.a, test.b)
		release()
		if test.same {
			_, err = c.take(t.Context(), test.b.claims())
			require.NoError(t, err)
		}
	}
}

func TestWhoWaitsForAClaimGetsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c claims
		release, err := c.take(t.Context(), []string{"nats"})
		require.NoError(t, err)
		got := make(chan func())
		for range 3 {
			go func() {
				release, err := c.take(t.Context(), []string{"nats-1", "network"})
				if err == nil {
					got <- release
				}
			}()
		}
		synctest.Wait()
		select {
		case <-got:
			t.Fatal("it is still held")
		default:
		}
		release()
		for range 3 {
			(<-got)()
		}
		require.Empty(t, c.held)
	})
}

func TestPeaksAreThoseOfAnySecond(t *testing.T) {
	at := func(ms ...int64) (ns []int64) {
		for _, m := range ms {
			ns = append(ns, m*int64(time.Millisecond))
		}
		return ns
	}
	require.Zero(t, peak(nil))
	require.Equal(t, 1, peak(at(0, 1000, 2000)))
	require.Equal(t, 3, peak(at(2300, 900, 100, 1800, 1899, 4000)))
}
