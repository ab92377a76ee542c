package sqlite

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// simulate lets writes arrive at a rate for some seconds, with commits that take a given time, and returns the mean size of a
// group and the mean time that a write waited for others.
func simulate(longest, commit time.Duration, perSecond float64) (size float64, waited time.Duration) {
	const writes = 20_000
	random := rand.New(rand.NewPCG(1, 2))
	begin := time.Unix(1_790_000_000, 0)
	arrivals := make([]time.Time, writes)
	at := begin
	for i := range arrivals {
		at = at.Add(time.Duration(random.ExpFloat64() / perSecond * float64(time.Second)))
		arrivals[i] = at
	}
	p := &pace{longest: longest, begun: begin}
	free, groups, taken := begin, 0, 0
	var total time.Duration
	for taken < writes {
		now := free
		if arrivals[taken].After(now) {
			now = arrivals[taken]
		}
		first := taken
		take := func() {
			for taken < writes && !arrivals[taken].After(now) {
				taken++
			}
		}
		take()
		for {
			wait := p.wait(now, taken-first)
			if wait == 0 {
				break
			}
			if taken < writes && arrivals[taken].Before(now.Add(wait)) {
				now = arrivals[taken]
			} else {
				now = now.Add(wait)
			}
			take()
		}
		for _, arrived := range arrivals[first:taken] {
			if arrived.After(free) {
				total += now.Sub(arrived)
			} else {
				total += now.Sub(free)
			}
		}
		p.begin(now, taken-first)
		free = now.Add(commit)
		groups++
	}
	return float64(writes) / float64(groups), total / writes
}

func TestRareWritesDoNotWait(t *testing.T) {
	for _, perSecond := range []float64{1, 100, 1000} {
		_, waited := simulate(time.Millisecond, 200*time.Microsecond, perSecond)
		require.Less(t, waited, time.Microsecond, "at %g/s", perSecond)
	}
}

func TestCrowdedWritesShareCommits(t *testing.T) {
	for _, perSecond := range []float64{3000, 4000, 8000} {
		alone, _ := simulate(0, 200*time.Microsecond, perSecond)
		size, waited := simulate(time.Millisecond, 200*time.Microsecond, perSecond)
		require.Greater(t, size, 1.5*alone, "at %g/s", perSecond)
		require.GreaterOrEqual(t, size, 2.5)
		require.Less(t, waited, time.Millisecond/2, "at %g/s", perSecond)
	}
}

func TestWritesDoNotWaitForMoreWhereCommitsAreSlow(t *testing.T) {
	_, waited := simulate(time.Millisecond, 2*time.Millisecond, 10_000)
	require.Less(t, waited, time.Microsecond)
}

func TestThePaceIsTurnedOffByZero(t *testing.T) {
	_, waited := simulate(0, 200*time.Microsecond, 100_000)
	require.Zero(t, waited)
}

func TestAPauseEndsTheCrowd(t *testing.T) {
	now := time.Unix(1_790_000_000, 0)
	p := &pace{longest: time.Millisecond, begun: now}
	for range 1000 {
		now = now.Add(time.Second / 4000)
		p.begin(now, 1)
	}
	require.Equal(t, time.Millisecond, p.wait(now, 1))
	require.Zero(t, p.wait(now, enoughWrites))
	now = now.Add(time.Second)
	require.Zero(t, p.wait(now, 1), "the first write after a pause")
	p.begin(now, 1)
	require.Zero(t, p.wait(now, 1))
}
