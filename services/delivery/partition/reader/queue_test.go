package reader

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/delivery/source"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errAway = errors.New("away")

func newQueue(maxEntries, maxBytes int) *Queue {
	return NewQueue(maxEntries, maxBytes, prometheus.NewGauge(prometheus.GaugeOpts{Name: "depth", Help: "Messages that wait."}))
}

func entry(sequence uint64, size int) source.Message {
	return source.Message{Sequence: ids.Sequence(sequence), Payload: make([]byte, size)}
}

func sequences(entries []source.Message) (list []uint64) {
	for i := range entries {
		list = append(list, uint64(entries[i].Sequence))
	}
	return list
}

// ready reports whether the queue signals that messages are available.
func ready(q *Queue) bool {
	select {
	case <-q.Ready:
		return true
	default:
		return false
	}
}

// A batch contains all waiting messages in order. Take also returns the number of messages that follow in the stream.
func TestTakeAll(t *testing.T) {
	q := newQueue(10, 100)
	require.False(t, ready(q))
	for sequence := range uint64(3) {
		require.True(t, q.put(t.Context(), entry(sequence, 1), 7-sequence))
	}
	require.InDelta(t, 3, testutil.ToFloat64(q.depth), 0)
	require.True(t, ready(q))
	require.False(t, ready(q), "one token for all of them")
	entries, pending, err := q.TakeAll(nil)
	require.NoError(t, err)
	require.Equal(t, []uint64{0, 1, 2}, sequences(entries))
	require.EqualValues(t, 5, pending)
	require.InDelta(t, 0, testutil.ToFloat64(q.depth), 0)

	empty, pending, err := q.TakeAll(nil)
	require.NoError(t, err)
	require.Empty(t, empty)
	require.Zero(t, pending)

	// The memory of a batch is reused, and keeps none of the batch's messages.
	require.True(t, q.put(t.Context(), entry(3, 1), 0))
	again, _, err := q.TakeAll(entries)
	require.NoError(t, err)
	require.Equal(t, []uint64{3}, sequences(again))
	require.Equal(t, []uint64{0, 0, 0}, sequences(entries))
	require.Nil(t, entries[0].Payload)
	require.True(t, q.put(t.Context(), entry(4, 1), 0))
	require.Same(t, &entries[0], &q.entries[0])
}

// When the queue is full, the reader waits until a batch is taken or the work ends.
func TestQueueIsBounded(t *testing.T) {
	for name, c := range map[string]struct {
		maxEntries, maxBytes int
		fit                  []int // sizes that fit
		next                 int   // the size that does not
	}{
		"by messages":                    {2, 1000, []int{1, 1}, 1},
		"by bytes":                       {10, 10, []int{5, 5}, 1},
		"by bytes that would go over it": {10, 10, []int{5}, 6},
		"by one message above the bound": {10, 10, []int{50}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := newQueue(c.maxEntries, c.maxBytes)
				for i, size := range c.fit {
					require.True(t, q.put(t.Context(), entry(uint64(i), size), 0))
				}
				put := make(chan bool, 1)
				go func() { put <- q.put(t.Context(), entry(99, c.next), 0) }()
				synctest.Wait()
				require.Empty(t, put, "it waits")
				entries, _, err := q.TakeAll(nil)
				require.NoError(t, err)
				require.Len(t, entries, len(c.fit))
				require.True(t, <-put)
				entries, _, err = q.TakeAll(nil)
				require.NoError(t, err)
				require.Equal(t, []uint64{99}, sequences(entries))

				// The queue is full again; this time the work ends.
				for i, size := range c.fit {
					require.True(t, q.put(t.Context(), entry(uint64(i), size), 0))
				}
				ctx, cancel := context.WithCancel(t.Context())
				go func() { put <- q.put(ctx, entry(99, c.next), 0) }()
				synctest.Wait()
				require.Empty(t, put)
				cancel()
				require.False(t, <-put)
				entries, _, err = q.TakeAll(nil)
				require.NoError(t, err)
				require.Len(t, entries, len(c.fit))
			})
		})
	}
}

// The error that ends the messages is returned after the last message. The first error counts.
func TestFail(t *testing.T) {
	q := newQueue(10, 100)
	require.True(t, q.put(t.Context(), entry(1, 1), 0))
	require.True(t, ready(q))
	q.fail(errAway)
	q.fail(errors.New("another"))
	require.True(t, ready(q))
	entries, _, err := q.TakeAll(nil)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	require.True(t, ready(q), "the error is still to be taken")
	for range 2 {
		entries, _, err = q.TakeAll(nil)
		require.ErrorIs(t, err, errAway)
		require.Empty(t, entries)
	}
	require.False(t, ready(q))
}
