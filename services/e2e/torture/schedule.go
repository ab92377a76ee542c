package torture

import (
	"math/rand/v2"
	"slices"
	"time"
)

// Limits of a schedule.
const (
	maxDown      = 2 // parts that may be down or paused at a time
	firstFault   = 3 * time.Second
	maxPause     = 6 * time.Second
	maxDowntime  = 2 * time.Second
	restartGuess = 1500 * time.Millisecond // assumed time until a restarted part works
)

// Schedule draws faults from a random source, by rising time. The first faults are always the same scenarios. Each
// scenario reveals a planted bug: a paused store (acks must not run ahead), a paused worker that continues as a zombie, a
// killed gateway and a killed worker. A stop of the store follows, so that every kind of part is restarted.
func Schedule(random *rand.Rand, parts []string, duration time.Duration, wipe bool) []Fault {
	var faults []Fault
	at := firstFault
	for _, fixed := range []Fault{
		{Kind: FaultPause, Part: "history-0", For: 2500 * time.Millisecond},
		{Kind: FaultPause, Part: "delivery-0", For: 4 * time.Second},
		{Kind: FaultKill, Part: "gateway-0", For: time.Second},
		{Kind: FaultKill, Part: "delivery-1", For: time.Second},
		{Kind: FaultStop, Part: "history-0"},
	} {
		if slices.Contains(parts, fixed.Part) && at+fixed.For < duration {
			fixed.At = at
			faults = append(faults, fixed)
			at += fixed.For + 700*time.Millisecond
		}
	}
	for at < duration {
		f := Fault{At: at, Part: parts[random.IntN(len(parts))]}
		switch n := random.IntN(10); {
		case n < 4:
			f.Kind, f.For = FaultKill, time.Duration(random.Int64N(int64(maxDowntime)))
		case n < 8:
			f.Kind, f.For = FaultPause, 300*time.Millisecond+time.Duration(random.Int64N(int64(maxPause-300*time.Millisecond)))
		default:
			f.Kind = FaultStop
		}
		if wipe && f.Kind == FaultKill && f.Part == "nats-0" && random.IntN(2) == 0 {
			f.Kind = FaultWipe
		}
		if f.At+f.For < duration && fits(faults, f) {
			faults = append(faults, f)
		}
		at += 300*time.Millisecond + time.Duration(random.Int64N(int64(2500*time.Millisecond)))
	}
	return faults
}

// fits reports whether the fault leaves enough parts up, and whether its own part is up at that time.
func fits(faults []Fault, f Fault) bool {
	down := 0
	for _, other := range faults {
		if other.At+other.For+restartGuess > f.At {
			if other.Part == f.Part {
				return false
			}
			down++
		}
	}
	return down < maxDown
}
