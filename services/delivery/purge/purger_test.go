package purge

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/services/delivery/deliverytest"
	"github.com/runnelhq/runnel/services/delivery/metrics"
	"github.com/runnelhq/runnel/services/delivery/source"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const identity = "1000000000" // of the stream that setup makes

var errAway = errors.New("away")

// backups is a store that has only watermarks.
type backups struct {
	historyv1.HistoryServiceClient

	mu     sync.Mutex
	backup *historyv1.Watermark
	err    error
	asked  atomic.Int32
}

func (b *backups) GetWatermark(context.Context, *historyv1.GetWatermarkRequest, ...grpc.CallOption) (*historyv1.GetWatermarkResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked.Add(1)
	return &historyv1.GetWatermarkResponse{Backup: b.backup}, b.err
}

type setting struct {
	*Purger

	stream *deliverytest.Stream
	js     *deliverytest.JetStream
	store  *backups
	log    *bytes.Buffer
}

func at(sequence uint64) *historyv1.Watermark {
	return &historyv1.Watermark{Stream: identity, Epoch: 1, Sequence: sequence, TimeNs: timeOf(sequence)}
}

// timeOf is the time of a message: one a second.
func timeOf(sequence uint64) int64 { return int64(sequence) * 1e9 }

// setup makes a purger of a stream with a number of messages, of which some are committed and covered by a backup.
func setup(t *testing.T, messages, committed uint64, backup *historyv1.Watermark) *setting {
	t.Helper()
	s := &setting{stream: deliverytest.NewStream(time.Unix(1, 0)), store: &backups{backup: backup}, log: &bytes.Buffer{}}
	for sequence := range messages {
		s.stream.Put(sequence+1, timeOf(sequence+1), nil)
	}
	s.js = &deliverytest.JetStream{Streams: map[string]*deliverytest.Stream{broker.StreamName(0): s.stream}}
	s.stream.Bytes, s.stream.MaxBytes = messages, 2*int64(messages)
	m, err := metrics.New(prometheus.NewRegistry(), 1, time.Now)
	require.NoError(t, err)
	s.Purger = New(Config{
		JS: s.js, History: s.store, Interval: time.Minute, Now: time.Now, Log: slog.New(slog.NewTextHandler(s.log, nil)), Metrics: m, Gauges: m.Partition(0),
	})
	s.Begin(at(committed), backup)
	return s
}

// What is committed and in the backup is purged, except for the newest.
func TestPurgeCommitted(t *testing.T) {
	s := setup(t, 12_000, 11_500, at(11_000))
	now, err := s.purgeCommitted(t.Context(), identity)
	require.NoError(t, err)
	require.EqualValues(t, 1, now.first)
	require.Equal(t, []uint64{1_500}, s.stream.Purges())
	require.InDelta(t, 1_499, testutil.ToFloat64(s.Metrics.Purged), 0)
	require.InDelta(t, 0, testutil.ToFloat64(s.Metrics.PurgedEarly), 0)
	require.InDelta(t, 0.5, testutil.ToFloat64(s.Gauges.Fill), 0)
	require.InDelta(t, 11_500-1_500, testutil.ToFloat64(s.Gauges.Window), 0, "seconds from the first message to the watermark, after the purge")
	require.Empty(t, s.log.String())
	_, err = s.purgeCommitted(t.Context(), identity)
	require.NoError(t, err)
	require.Len(t, s.stream.Purges(), 1, "nothing more to purge")
	s.Committed(at(11_600))
	_, err = s.purgeCommitted(t.Context(), identity)
	require.NoError(t, err)
	require.Equal(t, []uint64{1_500, 1_600}, s.stream.Purges())
}

// A stream that is nearly full is purged although a restore might need it; that is counted, and logged once a minute.
func TestPurgeEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := setup(t, 1_000, 900, at(100))
		s.stream.MaxBytes = 1_000
		for range 2 {
			_, err := s.purgeCommitted(t.Context(), identity)
			require.NoError(t, err)
		}
		require.Equal(t, []uint64{251, 501}, s.stream.Purges())
		require.InDelta(t, testutil.ToFloat64(s.Metrics.Purged), testutil.ToFloat64(s.Metrics.PurgedEarly), 0)
		require.Equal(t, 1, strings.Count(s.log.String(), "level=ERROR"))
		time.Sleep(complainInterval)
		s.complain("again")
		require.Equal(t, 2, strings.Count(s.log.String(), "level=ERROR"))
	})
}

// Without a backup the last hour stays, as far as it is known from the stream.
func TestWithoutBackup(t *testing.T) {
	s := setup(t, 20_000, 20_000, nil)
	_, err := s.purgeCommitted(t.Context(), identity)
	require.NoError(t, err)
	require.Equal(t, []uint64{10_000}, s.stream.Purges(), "10000 messages take longer than an hour")

	s = setup(t, 20_000, 20_000, nil)
	for sequence := uint64(1); sequence <= 20_000; sequence++ { // ten a second
		s.stream.Put(sequence, int64(sequence)*1e8, nil)
	}
	mark := at(20_000)
	mark.TimeNs = 20_000 * 1e8
	s.Begin(mark, nil)
	_, err = s.purgeCommitted(t.Context(), identity)
	require.NoError(t, err)
	require.Empty(t, s.stream.Purges(), "all of it is less than an hour old")
}

// Nothing is purged of a stream that is not the one whose outcomes were committed, or of which nothing is committed.
func TestNothingIsPurged(t *testing.T) {
	for name, change := range map[string]func(s *setting){
		"another stream": func(s *setting) { s.stream.Created = time.Unix(2, 0) },
		"the watermark is another stream's": func(s *setting) {
			mark := at(11_500)
			mark.Stream = "other"
			s.Committed(mark)
		},
		"the watermark's message is another": func(s *setting) {
			mark := at(11_500)
			mark.TimeNs++
			s.Committed(mark)
		},
		"nothing is committed":         func(s *setting) { s.Committed(at(0)) },
		"the first message is not yet": func(s *setting) { s.Committed(at(1)) },
		"the stream is empty": func(s *setting) {
			s.js.Streams[broker.StreamName(0)] = deliverytest.NewStream(time.Unix(1, 0))
		},
		"the backup is as old as the stream": func(s *setting) { s.backup = at(1) },
	} {
		t.Run(name, func(t *testing.T) {
			s := setup(t, 12_000, 11_500, at(11_000))
			change(s)
			_, err := s.purgeCommitted(t.Context(), identity)
			require.NoError(t, err)
			require.Empty(t, s.stream.Purges())
			require.InDelta(t, 0, testutil.ToFloat64(s.Metrics.Purged), 0)
		})
	}
}

// A broker that does not answer is an error, and nothing is purged.
func TestPurgeFails(t *testing.T) {
	for name, c := range map[string]struct {
		backup *historyv1.Watermark
		change func(s *setting)
	}{
		"the stream":          {at(11_000), func(s *setting) { s.js.Err = errAway }},
		"the watermark's":     {at(11_000), func(s *setting) { s.stream.Fail(11_500, errAway) }},
		"the purge":           {at(11_000), func(s *setting) { s.stream.FailPurges(errAway) }},
		"the search for time": {nil, func(s *setting) { s.stream.Fail(5_751, errAway) }},
	} {
		t.Run(name, func(t *testing.T) {
			s := setup(t, 12_000, 11_500, c.backup)
			c.change(s)
			_, err := s.purgeCommitted(t.Context(), identity)
			require.ErrorIs(t, err, errAway)
			require.Empty(t, s.stream.Purges())
		})
	}
}

// The stream is inspected at the interval, and at once when it seems to be nearly full; the last backup is read each interval.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := setup(t, 12_000, 11_500, at(11_000))
		s.stream.MaxBytes, s.stream.Bytes = 1<<30, 1<<20
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); s.Run(ctx, identity) }()
		synctest.Wait()
		require.Len(t, s.stream.Purges(), 1, "at the begin")
		s.Committed(at(11_700))
		time.Sleep(30 * time.Second)
		synctest.Wait()
		require.Len(t, s.stream.Purges(), 1)
		require.Zero(t, s.store.asked.Load())
		time.Sleep(31 * time.Second)
		synctest.Wait()
		require.Len(t, s.stream.Purges(), 2)
		require.EqualValues(t, 1, s.store.asked.Load())

		// Much was read: the stream may be nearly full.
		s.Committed(at(11_800))
		large := []source.Message{{Payload: make([]byte, 1<<20)}}
		s.Grow(large)
		synctest.Wait()
		time.Sleep(time.Second)
		synctest.Wait()
		require.Len(t, s.stream.Purges(), 2, "it is far from full")
		for range 900 {
			s.Grow(large)
		}
		time.Sleep(leastBetweenLooks)
		synctest.Wait()
		require.Len(t, s.stream.Purges(), 3)

		// A failure is counted and logged, and the next inspection purges.
		s.Committed(at(11_900))
		s.stream.FailPurges(errAway)
		time.Sleep(61 * time.Second)
		synctest.Wait()
		require.InDelta(t, 1, testutil.ToFloat64(s.Metrics.PurgeFailures), 0)
		require.Contains(t, s.log.String(), "away")
		s.stream.FailPurges(nil)
		time.Sleep(61 * time.Second)
		synctest.Wait()
		require.Len(t, s.stream.Purges(), 4)
		cancel()
		<-done
	})
}

// A backup that is marked meanwhile lets more be purged; while the store is away the previous one counts.
func TestBackupIsMarked(t *testing.T) {
	s := setup(t, 12_000, 11_500, at(1))
	s.store.backup = at(11_400)
	s.store.err = errAway
	s.askBackup(t.Context())
	_, err := s.purgeCommitted(t.Context(), identity)
	require.NoError(t, err)
	require.Empty(t, s.stream.Purges())
	s.store.err = nil
	s.askBackup(t.Context())
	_, err = s.purgeCommitted(t.Context(), identity)
	require.NoError(t, err)
	require.Equal(t, []uint64{1_500}, s.stream.Purges())
}

// A stream that is small, or half full, is inspected every second.
func TestNextLook(t *testing.T) {
	s := setup(t, 1, 1, nil)
	const large = 1 << 30
	require.Equal(t, time.Minute, s.nextLook(extent{}), "without a limit it is never full")
	require.Equal(t, time.Minute, s.nextLook(extent{bytes: large/2 - 1, maxBytes: large}))
	require.Equal(t, time.Second, s.nextLook(extent{bytes: large / 2, maxBytes: large}))
	require.Equal(t, time.Second, s.nextLook(extent{maxBytes: 64 << 20}))
	require.Equal(t, time.Minute, s.nextLook(extent{maxBytes: 64<<20 + 1}))
	s.Interval = time.Millisecond
	require.Equal(t, time.Millisecond, s.nextLook(extent{maxBytes: 1}))
}
