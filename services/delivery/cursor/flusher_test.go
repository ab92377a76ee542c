package cursor

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/delivery/wake"
)

// oneCursor is a source whose only cursor moves by one at each move.
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
	m.Add("g", map[string]Position{"ann": {Delivered: o.seq, Read: o.seq}}, map[string]struct{}{"ann": {}}, o.seq)
}

// shelf is a store that fails as often as it is told.
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
		require.Empty(t, store.times(), "the first go after a tenth of the interval")
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
		require.EqualValues(t, 2, store.cursor.GetReadSeq(), "a clean stop loses none")
		require.Len(t, receipts, 2)
	})
}
