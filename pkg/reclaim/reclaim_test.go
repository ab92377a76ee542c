package reclaim

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

const mib = 1 << 20

// stage is a process whose heap the test sets.
type stage struct {
	took time.Duration

	mu    sync.Mutex
	heap  sample
	freed int
}

func (s *stage) read() sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heap
}

// free stands for a collection. Its duration is set by the test.
func (s *stage) free() {
	time.Sleep(s.took)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.freed++
	s.heap.live, s.heap.objects, s.heap.free, s.heap.total = 50*mib, 50*mib, 0, 60*mib
}

func (s *stage) set(heap sample) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heap = heap
}

func (s *stage) collections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.freed
}

func (s *stage) run(t *testing.T) {
	t.Helper()
	r := &Reclaimer{log: slog.New(slog.DiscardHandler), read: s.read, free: s.free}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
	})
}

// after lets the process allocate at a rate for some seconds.
func (s *stage) after(seconds int, rate uint64) {
	for range seconds {
		s.mu.Lock()
		s.heap.allocated += rate
		s.mu.Unlock()
		time.Sleep(interval)
		synctest.Wait()
	}
}

func busy() sample {
	return sample{live: 50 * mib, objects: 70 * mib, free: 30 * mib, goal: 100 * mib, total: 120 * mib}
}

func TestAQuietProcessGivesMemoryBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stage{heap: busy()}
		s.run(t)
		s.after(10, 10*mib)
		require.Zero(t, s.collections(), "a busy process needs the memory")
		s.after(4, 100)
		require.Equal(t, 1, s.collections())
		s.after(600, 100)
		require.Equal(t, 1, s.collections(), "there is nothing more to give back")
		s.set(busy())
		s.after(4, 0)
		require.Equal(t, 2, s.collections())
	})
}

// Collections take at most a hundredth of the time.
func TestCollectionsAreRare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stage{heap: busy(), took: time.Second}
		s.run(t)
		for range 500 {
			s.set(busy())
			s.after(1, 0)
		}
		require.InDelta(t, 5, s.collections(), 1)
	})
}

func TestASmallGainIsNotWorthIt(t *testing.T) {
	s := busy()
	require.True(t, s.worthwhile())
	s.free, s.objects = 0, s.live+leastBytes-1
	require.False(t, s.worthwhile())
	s.total, s.objects = 1<<40, s.live+leastBytes
	require.False(t, s.worthwhile())
	require.Zero(t, sample{live: 5, objects: 3}.gain(), "objects were freed explicitly, or between the readings")
}

// sink keeps an allocation from being optimised away.
var sink []byte

// The garbage of this process is given back.
func TestGarbageIsGivenBack(t *testing.T) {
	r := New(slog.New(slog.DiscardHandler))
	sink = make([]byte, 64*mib)
	for i := 0; i < len(sink); i += 4096 {
		sink[i] = 1
	}
	before := r.read()
	require.Greater(t, before.objects, uint64(64*mib))
	sink = nil
	r.free()
	after := r.read()
	require.Less(t, after.total, before.total-60*mib)
	require.False(t, after.worthwhile())
}
