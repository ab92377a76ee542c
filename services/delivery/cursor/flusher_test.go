package cursor

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/runnelhq/runnel/pkg/ids"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/services/delivery/wake"
)

// oneCursor is a source whose only cursor advances by one at each move.
type oneCursor struct {
	moved wake.Signal
	seq   uint64
	saved uint64
}

func (o *oneCursor) move() {
	o.seq++
	o.moved.Raise()
}

func (o *oneCursor) Moved() wake.Signal { return o.moved }
func (o *oneCursor) Saved()             { o.saved = o.seq }
func (o *oneCursor) Collect(m *Moves) {
	m.Add("g", tableOf(map[ids.User]Position{"ann": {Delivered: ids.Seq(o.seq), Read: ids.Seq(o.seq)}}, "ann"), ids.Seq(o.seq))
}

// shelf is a store whose next calls fail, as many as the test sets.
type shelf struct {
	mu     sync.Mutex
	fail   int
	cursor *conversationv1.Cursor
	calls  []time.Time
}

func (s *shelf) SaveCursors(_ context.Context, in *historyv1.SaveCursorsRequest, _ ...grpc.CallOption) (*historyv1.SaveCursorsResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, time.Now())
	if s.fail > 0 {
		s.fail--
		return nil, errors.New("away")
	}
	s.cursor = in.GetUpdates()[0].GetCursor()
	return &historyv1.SaveCursorsResponse{}, nil
}

func (s *shelf) times() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

// A receipt is published only after its cursors are stored, at most once per interval; a stop stores the rest.
func TestReceiptsFollowStoredCursors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, store := &oneCursor{moved: wake.NewSignal()}, &shelf{fail: 2}
		var receipts []*conversationv1.Receipt
		f := &Flusher{
			Source: source, Store: store, Interval: time.Second, Timeout: time.Second,
			Publish: func(r *conversationv1.Receipt) {
				require.Equal(t, source.saved, r.GetRead()[0].GetSeq(), "not stored yet")
				receipts = append(receipts, r)
			},
			Flushed:  prometheus.NewHistogram(prometheus.HistogramOpts{}),
			Failures: prometheus.NewCounter(prometheus.CounterOpts{}),
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); f.Run(ctx) }()

		source.move()
		time.Sleep(50 * time.Millisecond)
		synctest.Wait()
		require.Empty(t, store.times(), "the first cursors are stored after a tenth of the interval")
		time.Sleep(time.Minute)
		synctest.Wait()
		calls := store.times()
		require.Len(t, calls, 3, "until one succeeds")
		require.InDelta(t, 2, testutil.ToFloat64(f.Failures), 0)
		require.Len(t, receipts, 1)
		for i := 1; i < len(calls); i++ {
			require.GreaterOrEqual(t, calls[i].Sub(calls[i-1]), time.Second/2)
		}

		source.move()
		cancel()
		<-done
		require.EqualValues(t, 2, store.cursor.GetReadSeq(), "a clean stop loses no cursor")
		require.Len(t, receipts, 2)
	})
}

// flushing is a flusher that runs over a source and a store of a test.
func flushing(source Source, store Store) (f *Flusher, receipts *[]*conversationv1.Receipt) {
	receipts = &[]*conversationv1.Receipt{}
	return &Flusher{
		Source: source, Store: store, Interval: time.Second, Timeout: 3 * time.Second,
		Publish:  func(r *conversationv1.Receipt) { *receipts = append(*receipts, r) },
		Flushed:  prometheus.NewHistogram(prometheus.HistogramOpts{Name: "flushed_cursors", Help: "Cursors stored at once."}),
		Failures: prometheus.NewCounter(prometheus.CounterOpts{}),
	}, receipts
}

// sumOf is the sum of what a histogram observed.
func sumOf(t *testing.T, observed prometheus.Observer) float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	require.NoError(t, registry.Register(observed.(prometheus.Collector)))
	families, err := registry.Gather()
	require.NoError(t, err)
	return families[0].GetMetric()[0].GetHistogram().GetSampleSum()
}

// many is a store that keeps the size and the deadline of each call, and fails one of them.
type many struct {
	failAt int // 0 for never
	sizes  []int
	left   []time.Duration
	users  map[string]int
}

func (m *many) SaveCursors(ctx context.Context, in *historyv1.SaveCursorsRequest, _ ...grpc.CallOption) (*historyv1.SaveCursorsResponse, error) {
	m.sizes = append(m.sizes, len(in.GetUpdates()))
	deadline, _ := ctx.Deadline()
	m.left = append(m.left, time.Until(deadline))
	if len(m.sizes) == m.failAt || ctx.Err() != nil {
		return nil, errors.New("away")
	}
	for _, u := range in.GetUpdates() {
		m.users[u.GetConversationId()+"/"+u.GetCursor().GetUserId()]++
	}
	return &historyv1.SaveCursorsResponse{}, nil
}

// batches is a source with a number of conversations, each with one cursor that moved.
type batches struct {
	oneCursor

	n     int
	times int // that Saved was called
}

func (b *batches) Saved() { b.times++ }
func (b *batches) Collect(m *Moves) {
	for i := range b.n {
		id := ids.Conversation(strconv.Itoa(i))
		m.Add(id, tableOf(map[ids.User]Position{"ann": {Delivered: 1}}, "ann"), 1)
	}
	b.n = 0
}

// Many cursors go in several calls. If one fails no receipt is published; all are stored with the next flush.
func TestManyCursors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, store := &batches{oneCursor: oneCursor{moved: wake.NewSignal()}, n: 2*rpc.MaxItems + 1}, &many{failAt: 2, users: map[string]int{}}
		f, receipts := flushing(source, store)
		pending := NewMoves()
		f.Source.Collect(pending)
		require.Error(t, f.store(t.Context(), pending))
		require.Equal(t, []int{rpc.MaxItems, rpc.MaxItems}, store.sizes)
		require.Empty(t, *receipts)
		require.Zero(t, source.times)
		require.Len(t, pending.Cursors, 2*rpc.MaxItems+1)
		require.NoError(t, f.store(t.Context(), pending))
		require.Equal(t, []int{rpc.MaxItems, rpc.MaxItems, 1}, store.sizes[2:])
		require.Len(t, store.users, 2*rpc.MaxItems+1)
		require.Len(t, *receipts, 2*rpc.MaxItems+1)
		require.Equal(t, 1, source.times)
		require.InDelta(t, 3*rpc.MaxItems+1, sumOf(t, f.Flushed), 0, "what a call stored")
		require.Empty(t, pending.Cursors)
		require.Empty(t, pending.Receipts)
	})
}

// A call may take the timeout; the last one, at a stop, only a moment, and it is not cut off by the stop itself.
func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, store := &batches{oneCursor: oneCursor{moved: wake.NewSignal()}, n: 1}, &many{users: map[string]int{}}
		f, receipts := flushing(source, store)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); f.Run(ctx) }()
		source.moved.Raise()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		source.n = 1
		source.moved.Raise()
		synctest.Wait()
		cancel() // while it waits for the interval
		<-done
		require.Equal(t, []time.Duration{3 * time.Second, lastFlush}, store.left)
		require.Len(t, *receipts, 2)
	})
}

// The last flush is tried once.
func TestLastFlushFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, store := &batches{oneCursor: oneCursor{moved: wake.NewSignal()}, n: 1}, &many{failAt: 1, users: map[string]int{}}
		f, receipts := flushing(source, store)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		f.Run(ctx)
		require.Equal(t, []int{1}, store.sizes)
		require.Empty(t, *receipts)
	})
}

// A busy source is flushed at a jittered interval from half of it to one and a half.
func TestFlushInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, store := &oneCursor{moved: wake.NewSignal()}, &shelf{}
		f, _ := flushing(source, store)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); f.Run(ctx) }()
		begun := time.Now()
		for range 4000 {
			source.moved.Raise()
			time.Sleep(25 * time.Millisecond)
		}
		cancel()
		<-done
		calls := store.times()
		require.Equal(t, 100*time.Millisecond, calls[0].Sub(begun))
		require.InDelta(t, 100, len(calls), 15)
		gaps := map[bool]int{}
		for i := 2; i < len(calls)-1; i++ {
			gap := calls[i].Sub(calls[i-1])
			require.GreaterOrEqual(t, gap, time.Second/2)
			require.LessOrEqual(t, gap, 3*time.Second/2+25*time.Millisecond)
			gaps[gap > time.Second]++
		}
		require.Greater(t, gaps[true], 10, "jitter")
		require.Greater(t, gaps[false], 10, "jitter")
	})
}
