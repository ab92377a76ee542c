package takeover

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/delivery/deliverytest"
	"github.com/runnelhq/runnel/services/delivery/metrics"
	"github.com/runnelhq/runnel/services/delivery/source"
)

const (
	partition = 2
	stream    = "1000000000" // the identity of the stream that setup makes
	other     = "999"        // the identity of an earlier stream
)

var errAway = errors.New("away")

// marks is a store that has only watermarks.
type marks struct {
	historyv1.HistoryServiceClient

	answer *historyv1.GetWatermarkResponse
	err    error
	asked  uint32
}

func (m *marks) GetWatermark(_ context.Context, in *historyv1.GetWatermarkRequest, _ ...grpc.CallOption) (*historyv1.GetWatermarkResponse, error) {
	m.asked = in.GetPartition()
	return m.answer, m.err
}

// setting is a finder over a store and a stream in memory.
type setting struct {
	*Finder

	store   *marks
	js      *deliverytest.JetStream
	stream  *deliverytest.Stream
	log     *bytes.Buffer
	located [][2]ids.Sequence
	judged  []uint64
	judge   error
}

// setup makes a stream with these messages and a store with a watermark. A message's time is ten times its sequence.
func setup(t *testing.T, mark *historyv1.Watermark, sequences ...uint64) *setting {
	t.Helper()
	s := &setting{store: &marks{answer: &historyv1.GetWatermarkResponse{Watermark: mark}}, stream: deliverytest.NewStream(time.Unix(1, 0)), log: &bytes.Buffer{}}
	payload, err := deliverytest.Command("", "ann", 1, deliverytest.Group("g")).MarshalVT()
	require.NoError(t, err)
	for _, sequence := range sequences {
		s.stream.Put(sequence, int64(sequence)*10, payload)
	}
	s.js = &deliverytest.JetStream{Streams: map[string]*deliverytest.Stream{broker.StreamName(partition): s.stream}}
	m, err := metrics.New(prometheus.NewRegistry(), 1, time.Now)
	require.NoError(t, err)
	s.Finder = &Finder{
		JS: s.js, History: s.store, Partition: partition, Republish: 3,
		EnsureStream: func(context.Context) error { require.Fail(t, "the stream exists"); return nil },
		Acknowledged: &Acknowledged{},
		Located:      func(sequence, last ids.Sequence) { s.located = append(s.located, [2]ids.Sequence{sequence, last}) },
		JudgeNewer: func(_ context.Context, e *source.Message) error {
			s.judged = append(s.judged, uint64(e.Sequence))
			return s.judge
		},
		Log: slog.New(slog.NewTextHandler(s.log, nil)), Metrics: m,
	}
	return s
}

func mark(identity string, sequence uint64) *historyv1.Watermark {
	return &historyv1.Watermark{Stream: identity, Sequence: sequence, Epoch: 4, TimeNs: int64(sequence) * 10}
}

func to(first, last uint64) (sequences []uint64) {
	for sequence := first; sequence <= last; sequence++ {
		sequences = append(sequences, sequence)
	}
	return sequences
}

// This table contains every case of comparing the watermark with the stream.
func TestFind(t *testing.T) {
	elsewhere := mark(stream, 6)
	elsewhere.TimeNs = 45
	for name, c := range map[string]struct {
		mark              *historyv1.Watermark
		sequences         []uint64
		sequence, from    uint64
		opening           uint64 // 0 for none
		begin, checked    bool
		replaced, rewound float64
	}{
		"nothing was ever committed, nor sent": {mark: nil, from: 1, begin: true},
		"nothing was ever committed":           {mark: &historyv1.Watermark{}, sequences: to(1, 5), from: 1, opening: 1, begin: true},
		"all is committed":                     {mark: mark(stream, 9), sequences: to(1, 9), sequence: 9, from: 7},
		"some is not committed":                {mark: mark(stream, 6), sequences: to(1, 9), sequence: 6, from: 4, opening: 7},
		"few are committed":                    {mark: mark(stream, 2), sequences: to(1, 9), sequence: 2, from: 1, opening: 3},
		"older messages aged out":              {mark: mark(stream, 6), sequences: to(6, 9), sequence: 6, from: 6, opening: 7},
		"the watermark's message aged out":     {mark: mark(stream, 5), sequences: to(6, 9), sequence: 5, from: 6, opening: 6},
		"the stream ends before the watermark": {mark: mark(stream, 9), sequences: to(1, 7), sequence: 7, from: 5, begin: true, checked: true, rewound: 1},
		"another message at the watermark":     {mark: elsewhere, sequences: to(1, 9), sequence: 4, from: 2, opening: 5, begin: true, checked: true, rewound: 1},
		"a new stream, empty":                  {mark: mark(other, 500), from: 1, begin: true, checked: true, replaced: 1},
		"a new stream with old messages":       {mark: mark(other, 7), sequences: to(1, 9), sequence: 7, from: 1, opening: 8, begin: true, checked: true, replaced: 1},
		"a new stream with only old messages":  {mark: mark(other, 50), sequences: to(5, 9), sequence: 9, from: 5, begin: true, checked: true, replaced: 1},
		"a new stream with only new messages":  {mark: mark(other, 0), sequences: to(1, 9), from: 1, opening: 1, begin: true, checked: true, replaced: 1},
		"a new stream with one old message":    {mark: mark(other, 5), sequences: to(5, 9), sequence: 5, from: 5, opening: 6, begin: true, checked: true, replaced: 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := setup(t, c.mark, c.sequences...)
			at, err := s.Find(t.Context())
			require.NoError(t, err)
			require.EqualValues(t, partition, s.store.asked)
			require.Equal(t, ids.Sequence(c.sequence), at.Sequence)
			require.Equal(t, ids.Sequence(c.from), at.From)
			require.Equal(t, c.begin, at.BeginEpoch)
			require.Equal(t, c.checked, at.Checked)
			require.Equal(t, stream, at.Identity)
			require.Contains(t, s.stream.Subjects, broker.ServerSubject(partition), "a stream of an earlier version gets the subject")
			require.NotNil(t, at.Stored, "the first append expects it")
			require.Equal(t, c.mark.GetSequence(), at.Stored.GetSequence())
			require.Equal(t, c.mark.GetStream(), at.Stored.GetStream())
			var opening uint64
			if at.Opening != nil {
				opening = uint64(at.Opening.Sequence)
				require.NotNil(t, at.Opening.Command)
			}
			require.Equal(t, c.opening, opening)
			var last ids.Sequence
			if n := len(c.sequences); n > 0 {
				last = ids.Sequence(c.sequences[n-1])
			}
			require.Equal(t, last, at.Last)
			require.Equal(t, [][2]ids.Sequence{{ids.Sequence(c.sequence), last}}, s.located)
			require.InDelta(t, c.replaced, testutil.ToFloat64(s.Metrics.Replaced), 0)
			require.InDelta(t, c.rewound, testutil.ToFloat64(s.Metrics.Rewound), 0)
			require.Equal(t, c.replaced+c.rewound > 0, bytes.Contains(s.log.Bytes(), []byte("level=ERROR")))
		})
	}
}

// The place includes the watermark of the last backup.
func TestFindGivesTheBackup(t *testing.T) {
	s := setup(t, mark(stream, 6), to(1, 6)...)
	at, err := s.Find(t.Context())
	require.NoError(t, err)
	require.Nil(t, at.Backup)
	s.store.answer.Backup = mark(stream, 3)
	at, err = s.Find(t.Context())
	require.NoError(t, err)
	require.True(t, proto.Equal(mark(stream, 3), at.Backup))
}

// A store whose watermark is below an acknowledged watermark has gone back. Its positions are used again, so a new epoch
// begins. The alarm stays until the store has passed the acknowledged watermark.
func TestDatabaseWentBack(t *testing.T) {
	s := setup(t, mark(stream, 6), to(1, 9)...)
	s.Acknowledged.Set(mark(stream, 8))
	for range 2 {
		at, err := s.Find(t.Context())
		require.NoError(t, err)
		require.True(t, at.BeginEpoch)
		require.False(t, at.Checked)
		require.EqualValues(t, 6, at.Sequence, "it goes on from what the store has")
		require.EqualValues(t, 8, s.Acknowledged.get().GetSequence())
	}
	require.Contains(t, s.log.String(), "the database has an older state")
	s.log.Reset()
	s.store.answer.Watermark = mark(stream, 8)
	at, err := s.Find(t.Context())
	require.NoError(t, err)
	require.False(t, at.BeginEpoch)
	require.Empty(t, s.log.String())

	// The store's current watermark counts as acknowledged.
	s.store.answer.Watermark = mark(stream, 9)
	_, err = s.Find(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 9, s.Acknowledged.get().GetSequence())
}

// The message after the place is missing, and later messages exist. The partition stops, and the error says how to
// continue.
func TestHole(t *testing.T) {
	for name, c := range map[string]struct {
		mark      *historyv1.Watermark
		sequences []uint64
		says      []string
		located   uint64
	}{
		"one message": {mark(stream, 2), []uint64{1, 2, 4, 5}, []string{"message 3 is missing", "1 to 5", "accept-loss 2 --through 3"}, 2},
		"several":     {mark(stream, 2), []uint64{1, 2, 6}, []string{"messages 3 to 5 are missing", "accept-loss 2 --through 5"}, 2},
		"aged out":    {mark(stream, 2), []uint64{7, 8}, []string{"messages 3 to 6 are missing", "7 to 8"}, 2},
		"at the very start": {
			nil,
			[]uint64{3},
			[]string{"messages 1 to 2 are missing", "accept-loss 2 --through 2"},
			0,
		},
		"in a new stream": {
			mark(other, 4),
			[]uint64{50, 51},
			[]string{"messages 1 to 49 are missing", "delete the stream"},
			0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := setup(t, c.mark, c.sequences...)
			at, err := s.Find(t.Context())
			require.Nil(t, at)
			require.ErrorIs(t, err, ErrHole)
			for _, what := range c.says {
				require.ErrorContains(t, err, what)
			}
			require.Len(t, s.located, 1, "operators see how far it came")
			require.Equal(t, ids.Sequence(c.located), s.located[0][0])
		})
	}
}

// If the message after the hole cannot be read either, all messages to the end count as missing.
func TestHoleToTheEnd(t *testing.T) {
	s := setup(t, mark(stream, 2), 1, 2, 6)
	s.stream.Fail(6, errAway)
	_, err := s.Find(t.Context())
	require.ErrorIs(t, err, ErrHole)
	require.ErrorContains(t, err, "messages 3 to 6 are missing")
}

// A missing stream is created.
func TestStreamIsMade(t *testing.T) {
	s := setup(t, nil)
	name, made := broker.StreamName(partition), s.js.Streams
	s.js.Streams = nil
	s.EnsureStream = func(context.Context) error { s.js.Streams = made; return nil }
	at, err := s.Find(t.Context())
	require.NoError(t, err)
	require.Equal(t, stream, at.Identity)
	require.Contains(t, s.js.Streams, name)
}

// Finding a place fails if any request is not answered.
func TestFindFails(t *testing.T) {
	for name, c := range map[string]struct {
		mark   *historyv1.Watermark
		change func(s *setting)
		says   string
	}{
		"the store":  {mark(stream, 6), func(s *setting) { s.store.answer, s.store.err = nil, errAway }, "get the watermark"},
		"the broker": {mark(stream, 6), func(s *setting) { s.js.Err = errAway }, "IN_2"},
		"making the stream": {mark(stream, 6), func(s *setting) {
			s.js.Streams, s.EnsureStream = nil, func(context.Context) error { return errAway }
		}, "IN_2"},
		"the message at the watermark": {mark(stream, 6), func(s *setting) { s.stream.Fail(6, errAway) }, "get message 6"},
		"the message after it":         {mark(stream, 6), func(s *setting) { s.stream.Fail(7, errAway) }, "get message 7"},
		"the search in a new stream":   {mark(other, 6), func(s *setting) { s.stream.Fail(5, errAway) }, "get message 5"},
		"the search after a lost tail": {mark(stream, 12), func(s *setting) { s.stream.Fail(5, errAway) }, "get message 5"},
	} {
		t.Run(name, func(t *testing.T) {
			s := setup(t, c.mark, to(1, 9)...)
			c.change(s)
			at, err := s.Find(t.Context())
			require.ErrorIs(t, err, errAway)
			require.ErrorContains(t, err, c.says)
			require.NotErrorIs(t, err, ErrHole)
			require.Nil(t, at)
		})
	}
}

// If the next command is of a newer version, it is judged before a place is returned.
func TestNewerCommandAtTheOpening(t *testing.T) {
	s := setup(t, mark(stream, 6), to(1, 6)...)
	newer := deliverytest.Command("", "ann", 1, deliverytest.Group("g"))
	newer.Level = uint32(conversation.MaxLevel()) + 1
	payload, err := newer.MarshalVT()
	require.NoError(t, err)
	s.stream.Put(7, 70, payload)
	at, err := s.Find(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 7, at.Opening.Sequence)
	require.Equal(t, []uint64{7}, s.judged)
	s.judge = errAway
	at, err = s.Find(t.Context())
	require.ErrorIs(t, err, errAway)
	require.Nil(t, at)

	s = setup(t, mark(stream, 6), to(1, 7)...)
	_, err = s.Find(t.Context())
	require.NoError(t, err)
	require.Empty(t, s.judged, "others are not asked about")
}
