package storetest

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/ids"
)

// BenchmarkPaced measures messages that arrive at a rate, whatever the store does: p50 and p99 are from a message's arrival
// to its commit. Messages go to all partitions at random. As a delivery worker does, each partition has one append under
// way, and the next one takes all messages that have arrived meanwhile.
func BenchmarkPaced(b *testing.B, subject Subject) {
	for _, perSecond := range []int{1000, 4000} {
		b.Run(fmt.Sprintf("messages=%d", perSecond), func(b *testing.B) { paced(b, subject, perSecond) })
	}
}

// pacedLane is a partition at which messages arrive.
type pacedLane struct {
	*lane
	mu       sync.Mutex
	arrived  []time.Time
	wake     chan struct{} // has a buffer of one
	appends  int
	awaiting []time.Time
}

func paced(b *testing.B, subject Subject, perSecond int) {
	b.Helper()
	db := subject.New(b)
	lanes := make([]*pacedLane, Partitions)
	for p := range lanes {
		lanes[p] = &pacedLane{lane: newLane(b, db, ids.Partition(p), benchConversations/Partitions), wake: make(chan struct{}, 1)}
	}
	meter := startMeter(b, db)
	b.ResetTimer()
	var running sync.WaitGroup
	for _, l := range lanes {
		running.Go(func() { l.run(b) })
	}
	due := time.Now()
	for range b.N {
		due = due.Add(time.Duration(rand.ExpFloat64() * float64(time.Second) / float64(perSecond)))
		if wait := time.Until(due); wait > 0 {
			time.Sleep(wait) //nolint:forbidigo // the pace of a benchmark
		}
		lanes[rand.IntN(len(lanes))].arrive(due)
	}
	for _, l := range lanes {
		close(l.wake)
	}
	running.Wait()
	b.StopTimer()
	appends := 0
	var took []time.Duration
	for _, l := range lanes {
		appends += l.appends
		took = append(took, l.took...)
	}
	meter.report(b.N, appends, took)
	b.ReportMetric(float64(b.N)/float64(appends), "events/append")
}

func (l *pacedLane) arrive(at time.Time) {
	l.mu.Lock()
	l.arrived = append(l.arrived, at)
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default: // it was woken already
	}
}

// run appends until wake is closed and no message is left.
func (l *pacedLane) run(b *testing.B) {
	b.Helper()
	for open := true; open; {
		_, open = <-l.wake
		l.mu.Lock()
		l.awaiting, l.arrived = l.arrived, l.awaiting[:0]
		l.mu.Unlock()
		if len(l.awaiting) == 0 {
			continue
		}
		_, err := l.Append(b.Context(), l.batch(b, len(l.awaiting)))
		require.NoError(b, err)
		now := time.Now()
		for _, at := range l.awaiting {
			l.took = append(l.took, now.Sub(at))
		}
		l.appends++
	}
}
