package torture

import (
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/runnelhq/runnel/services/e2e/launch"
)

const (
	// zombiePause is well above the lease of a partition, 2 s, so that other workers have time to continue.
	zombiePause = 4 * time.Second
	// shortestTrouble and longestTrouble bound the duration of a network disturbance. Services notice within seconds that
	// the other side is gone, or never.
	shortestTrouble = time.Second
	longestTrouble  = 6 * time.Second
)

// wires are the pairs of parts that communicate. If only one of several parts is listed, the other parts must be able to
// continue.
var wires = [][2]string{
	{"gateway-0", "nats"},
	{"delivery-1", "nats"},
	{"gateway-1", "history"},
	{"delivery-0", "history"},
	{"history-0", "postgres"},
	{"nats-1", "nats"},
	{"history", "postgres"},
	{"delivery", "nats"},
	{"delivery-0", "nats-0"},
	{launch.Clients, "gateway-0"},
	{launch.Clients, "gateway"},
}

// network returns a disturbance between two parts. A reset has no duration.
func network(a, b string, trouble Trouble, d time.Duration) Fault {
	if trouble == TroubleReset {
		d = 0
	}
	return Fault{Kind: FaultNetwork, Part: a, Other: b, Trouble: trouble, For: d}
}

// Tour returns each kind of fault once, in an order determined by a seed. The faults require a cluster of NATS servers,
// PostgreSQL, several parts of each kind and proxies.
func Tour(random *rand.Rand) []Fault {
	// For each step of a message's path, one way to lose the connection; the seed decides which.
	trouble := func(a, b string) Fault { return network(a, b, pick(random, Troubles...), 1500*time.Millisecond) }
	tour := []Fault{
		{Kind: FaultLeader, Part: "nats", Partition: random.IntN(partitions), For: 500 * time.Millisecond},
		{Kind: FaultZombie, Part: pick(random, "delivery-0", "delivery-1"), For: zombiePause},
		trouble(pick(random, "gateway-0", "gateway-1", "delivery-0", "delivery-1"), "nats"),
		trouble(pick(random, "gateway-0", "gateway-1", "delivery-0", "delivery-1"), "history"),
		trouble(pick(random, "history-0", "history-1", "history"), "postgres"),
		network(pick(random, "nats-0", "nats-1", "nats-2"), "nats", pick(random, TroubleHold, TroubleLose, TroubleCut), 2500*time.Millisecond),
		network(launch.Clients, "gateway-0", pick(random, TroubleHold, TroubleLose, TroubleTrickle), 3*time.Second),
		{Kind: FaultRoll, Part: "gateway"},
		{Kind: FaultRoll, Part: "delivery"},
		{Kind: FaultRoll, Part: "history"},
		{Kind: FaultStorm, Part: "gateway"},
		{Kind: FaultStorm, Part: launch.Clients},
		{Kind: FaultSlow, Part: "gateway-0"},
		{Kind: pick(random, FaultKill, FaultStop), Part: "postgres"},
	}
	random.Shuffle(len(tour), func(i, j int) { tour[i], tour[j] = tour[j], tour[i] })
	return tour
}

// GrandTour returns a tour with longer faults: trouble on every connection, NATS servers rolled and put into lame-duck
// mode, and both ways of restarting PostgreSQL.
func GrandTour(random *rand.Rand) []Fault {
	tour := append(
		Tour(random),
		Fault{Kind: FaultLameDuck, Part: pick(random, "nats-0", "nats-1", "nats-2")},
		Fault{Kind: FaultRoll, Part: "nats"},
		Fault{Kind: FaultStop, Part: "postgres"},
		Fault{Kind: FaultKill, Part: "postgres", For: time.Second},
		Fault{Kind: FaultPause, Part: "postgres", For: 2 * time.Second},
	)
	for _, wire := range wires {
		tour = append(tour, network(wire[0], wire[1], pick(random, Troubles...), shortestTrouble+time.Duration(random.Int64N(int64(longestTrouble-shortestTrouble)))))
	}
	random.Shuffle(len(tour), func(i, j int) { tour[i], tour[j] = tour[j], tour[i] })
	return tour
}

// Outages returns power losses and full disks, one after another.
func Outages(random *rand.Rand, store launch.Store, nodes int) []Fault {
	database := string(store)
	full := func(part string) Fault {
		return Fault{Kind: FaultFull, Part: part, For: time.Second + time.Duration(random.Int64N(int64(2*time.Second)))}
	}
	outages := []Fault{
		{Kind: FaultPower, Part: everything},
		full("nats-" + string(rune('0'+random.IntN(nodes)))),
		{Kind: FaultPower, Part: "database"},
		full(database),
		{Kind: FaultPower, Part: "nats"},
		{Kind: FaultPower, Part: everything},
	}
	random.Shuffle(len(outages), func(i, j int) { outages[i], outages[j] = outages[j], outages[i] })
	return outages
}

// Wipes returns losses of all data of a single NATS server, with kills of the parts that must continue from the database.
func Wipes() []Fault {
	wipe := Fault{Kind: FaultWipe, Part: "nats-0", For: 300 * time.Millisecond}
	return []Fault{wipe, {Kind: FaultKill, Part: "delivery-0"}, wipe, {Kind: FaultKill, Part: "history-0"}, wipe}
}

// Mix draws an endless series of faults for a system with these parts. Two lanes carry out such a series concurrently, so
// that faults overlap.
func Mix(random *rand.Rand, parts []string) func() (Fault, bool) {
	nodes := 0
	for _, part := range parts {
		if strings.HasPrefix(part, "nats") {
			nodes++
		}
	}
	there := slices.DeleteFunc(slices.Clone(wires), func(w [2]string) bool {
		return w[0] == "nats-1" && nodes < 3
	})
	return func() (Fault, bool) {
		between := func(a, b time.Duration) time.Duration { return a + time.Duration(random.Int64N(int64(b-a))) }
		switch n := random.IntN(20); {
		case n < 7:
			wire := pick(random, there...)
			return network(wire[0], wire[1], pick(random, Troubles...), between(shortestTrouble, longestTrouble)), true
		case n < 10:
			return Fault{Kind: FaultKill, Part: pick(random, parts...), For: between(0, maxDowntime)}, true
		case n < 12:
			return Fault{Kind: FaultPause, Part: pick(random, parts...), For: between(300*time.Millisecond, maxPause)}, true
		case n < 13:
			return Fault{Kind: FaultStop, Part: pick(random, parts...)}, true
		case n < 14:
			return Fault{Kind: FaultZombie, Part: pick(random, "delivery-0", "delivery-1"), For: zombiePause}, true
		case n < 15:
			return Fault{Kind: FaultRoll, Part: pick(random, "gateway", "delivery", "history", "nats")}, true
		case n < 16:
			return Fault{Kind: FaultStorm, Part: pick(random, "gateway", launch.Clients)}, true
		case n < 17:
			return Fault{Kind: FaultSlow, Part: "gateway-0"}, true
		case nodes < 3:
			return Fault{Kind: FaultKill, Part: "nats-0", For: between(0, maxDowntime)}, true
		case n < 19:
			return Fault{Kind: FaultLeader, Part: "nats", Partition: random.IntN(partitions), For: between(0, maxDowntime)}, true
		default:
			return Fault{Kind: FaultLameDuck, Part: pick(random, "nats-0", "nats-1", "nats-2")}, true
		}
	}
}

// list returns a function that returns the faults one after another.
func list(faults []Fault) func() (Fault, bool) {
	return func() (Fault, bool) {
		if len(faults) == 0 {
			return Fault{}, false
		}
		first := faults[0]
		faults = faults[1:]
		return first, true
	}
}

func pick[T any](random *rand.Rand, from ...T) T { return from[random.IntN(len(from))] }
