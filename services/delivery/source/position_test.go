package source_test

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/ids"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/delivery/deliverytest"
	"github.com/runnelhq/runnel/services/delivery/source"
)

var errAway = errors.New("away")

// A stream that was created again has another identity, and nothing else changes it.
func TestIdentity(t *testing.T) {
	at := time.Unix(1_790_000_000, 5)
	first := source.IdentityOf(&jetstream.StreamInfo{Created: at})
	require.Equal(t, "1790000000000000005", first)
	require.Equal(t, first, source.IdentityOf(&jetstream.StreamInfo{Created: at.In(time.FixedZone("", 3600)), State: jetstream.StreamState{LastSeq: 9}}))
	require.NotEqual(t, first, source.IdentityOf(&jetstream.StreamInfo{Created: at.Add(1)}))
}

// The watermark names a message: it must be in the stream, with the same time, unless it aged out.
func TestLostTail(t *testing.T) {
	for name, c := range map[string]struct {
		sequence uint64
		timeNs   int64
		lost     bool
		err      error
	}{
		"the message is there":           {sequence: 6, timeNs: 60},
		"it is the first":                {sequence: 5, timeNs: 50},
		"it is the last":                 {sequence: 9, timeNs: 90},
		"another message is there":       {sequence: 6, timeNs: 61, lost: true},
		"another message is at the end":  {sequence: 9, timeNs: 91, lost: true},
		"the stream ends before it":      {sequence: 10, timeNs: 100, lost: true},
		"it aged out":                    {sequence: 4, timeNs: 40},
		"nothing was committed":          {sequence: 0},
		"a hole is where it was":         {sequence: 7, timeNs: 70},
		"the broker does not answer":     {sequence: 8, timeNs: 80, err: errAway},
		"another message with no answer": {sequence: 8, timeNs: 81, err: errAway},
	} {
		t.Run(name, func(t *testing.T) {
			s := deliverytest.NewStream(time.Unix(1, 0))
			for _, sequence := range []uint64{5, 6, 8, 9} {
				s.Put(sequence, int64(sequence)*10, nil)
			}
			s.Fail(8, errAway)
			lost, err := source.LostTail(t.Context(), s, &historyv1.Watermark{Sequence: c.sequence, TimeNs: c.timeNs}, 5, 9)
			require.ErrorIs(t, err, c.err)
			require.Equal(t, c.lost, lost)
		})
	}
}

// The search finds the last message that is not newer, whatever the bounds and whatever is missing before it.
func TestLastNotAfter(t *testing.T) {
	s := deliverytest.NewStream(time.Unix(1, 0))
	for sequence := uint64(5); sequence <= 1000; sequence++ {
		s.Put(sequence, int64(sequence)*10, nil)
	}
	find := func(timeNs int64, first, last uint64) uint64 {
		found, err := source.LastNotAfter(t.Context(), s, timeNs, ids.Sequence(first), ids.Sequence(last))
		require.NoError(t, err)
		return uint64(found)
	}
	require.EqualValues(t, 700, find(7000, 5, 1000))
	require.EqualValues(t, 700, find(7009, 5, 1000))
	require.EqualValues(t, 699, find(6999, 5, 1000))
	require.EqualValues(t, 1000, find(1<<40, 5, 1000))
	require.EqualValues(t, 5, find(50, 5, 1000))
	require.EqualValues(t, 4, find(49, 5, 1000), "all are newer")
	require.EqualValues(t, 4, find(100, 5, 4), "an empty stream")
	before := s.Reads()
	find(7000, 5, 1000)
	require.LessOrEqual(t, s.Reads()-before, 10, "it does not read the whole stream")
}

func TestLastNotAfterPassesHoles(t *testing.T) {
	s := deliverytest.NewStream(time.Unix(1, 0))
	s.Put(1, 10, nil)
	s.Put(5, 50, nil)
	s.Put(6, 60, nil)
	found, err := source.LastNotAfter(t.Context(), s, 55, 1, 6)
	require.NoError(t, err)
	require.EqualValues(t, 5, found)
}

// A broker that does not answer is an error, and is not asked again and again.
func TestLastNotAfterFails(t *testing.T) {
	s := deliverytest.NewStream(time.Unix(1, 0))
	for sequence := uint64(1); sequence <= 1000; sequence++ {
		s.Fail(sequence, errAway)
	}
	_, err := source.LastNotAfter(t.Context(), s, 55, 1, 1000)
	require.ErrorIs(t, err, errAway)
	require.ErrorContains(t, err, "get message 501")
	require.Equal(t, 1, s.Reads())
}
