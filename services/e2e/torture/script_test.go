package torture

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/services/e2e/launch"
	"github.com/runnelhq/runnel/services/e2e/proxy"
)

func seeded(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

var clusterParts = []string{"postgres", "nats-0", "nats-1", "nats-2", "history-0", "history-1", "delivery-0", "delivery-1", "gateway-0", "gateway-1"}

func TestATourGoesEverywhere(t *testing.T) {
	first := Tour(seeded(1))
	require.Equal(t, first, Tour(seeded(1)), "a seed gives one tour")
	require.NotEqual(t, first, Tour(seeded(2)))
	troubles := map[Trouble]bool{}
	for seed := range uint64(50) {
		seen := map[string]bool{}
		for _, f := range Tour(seeded(seed)) {
			seen[string(f.Kind)] = true
			if f.Kind == FaultNetwork {
				seen[kindOf(f.Part)+"–"+kindOf(f.Other)] = true
				troubles[f.Trouble] = true
			}
			if f.Kind == FaultStorm {
				seen["storm "+f.Part] = true
			}
			if f.Kind == FaultRoll {
				seen["roll "+f.Part] = true
			}
		}
		for _, want := range []string{
			"kill leader", "zombie", "roll", "storm gateway", "storm clients", "slow reader", "history–postgres", "nats–nats", "clients–gateway",
		} {
			require.True(t, seen[want], "seed %d: %s", seed, want)
		}
		require.True(t, seen["kill"] || seen["stop"], "PostgreSQL is restarted")
		for _, kind := range slices.Sorted(maps.Keys(mixed)) {
			require.True(t, seen["roll "+kind], "seed %d: every %s can change its version", seed, kind)
		}
	}
	for _, trouble := range Troubles {
		require.True(t, troubles[trouble], "%s is met by some seed", trouble)
	}
}

func TestAGrandTourGoesOverEveryWire(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range GrandTour(seeded(1)) {
		seen[string(f.Kind)+" "+f.Part+" "+f.Other] = true
	}
	for _, wire := range wires {
		require.True(t, seen["network "+wire[0]+" "+wire[1]], "%v", wire)
	}
	for _, want := range []string{"roll nats ", "roll delivery ", "roll history ", "roll gateway ", "stop postgres ", "kill postgres ", "kill leader nats "} {
		require.True(t, seen[want], want)
	}
}

func TestEveryTroubleIsOne(t *testing.T) {
	seen := map[proxy.Weather]Trouble{}
	for _, trouble := range Troubles {
		weather, reset := trouble.weather()
		require.True(t, reset || weather != proxy.Weather{}, "%s does nothing", trouble)
		require.Empty(t, seen[weather], "%s is the same", trouble)
		seen[weather] = trouble
	}
}

func TestAMixNamesOnlyWhatIsThere(t *testing.T) {
	ends := append(slices.Clone(clusterParts), "gateway", "delivery", "history", "nats", launch.Clients)
	kinds := map[FaultKind]bool{}
	next := Mix(seeded(3), clusterParts)
	for range 2000 {
		f, more := next()
		require.True(t, more)
		require.Contains(t, ends, f.Part)
		if f.Kind == FaultNetwork {
			require.Contains(t, ends, f.Other)
			require.Equal(t, f.Trouble == TroubleReset, f.For == 0)
		}
		kinds[f.Kind] = true
	}
	for _, kind := range []FaultKind{
		FaultKill, FaultStop, FaultPause, FaultZombie, FaultLameDuck, FaultLeader, FaultRoll, FaultStorm, FaultNetwork, FaultSlow,
	} {
		require.True(t, kinds[kind], "%s never happens", kind)
	}
	single := slices.DeleteFunc(slices.Clone(clusterParts), func(p string) bool { return p == "nats-1" || p == "nats-2" })
	next = Mix(seeded(3), single)
	for range 2000 {
		f, _ := next()
		require.NotContains(t, []FaultKind{FaultLeader, FaultLameDuck}, f.Kind, "there is no cluster")
		require.NotContains(t, []string{"nats-1", "nats-2"}, f.Part)
		require.NotContains(t, []string{"nats-1", "nats-2"}, f.Other)
	}
}

func TestOutagesHitEverythingThatStores(t *testing.T) {
	for seed := range uint64(20) {
		seen := map[string]int{}
		for _, f := range Outages(seeded(seed), launch.PostgreSQL, 3) {
			seen[f.name()]++
		}
		require.Equal(t, map[string]int{
			"power loss all": 2, "power loss database": 1, "power loss nats": 1, "full disk nats": 1, "full disk postgres": 1,
		}, seen)
	}
}
