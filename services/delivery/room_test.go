package delivery

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/services/delivery/deliverytest"
)

func TestPurgeBelow(t *testing.T) {
	mark := func(sequence uint64) *historyv1.Watermark {
		return &historyv1.Watermark{Stream: "s", Epoch: 3, Sequence: sequence, TimeNs: 1}
	}
	other := func(change func(*historyv1.Watermark)) *historyv1.Watermark {
		m := mark(40_000)
		change(m)
		return m
	}
	half := extent{first: 1, last: 60_000, messages: 60_000, bytes: 50_000, maxBytes: 100_000}
	full := extent{first: 1, last: 60_000, messages: 60_000, bytes: 95_000, maxBytes: 100_000}
	for name, c := range map[string]struct {
		committed *historyv1.Watermark
		stream    extent
		backup    *historyv1.Watermark
		recent    uint64
		bound     uint64
		pressed   bool
	}{
		"below the backup":                       {mark(50_000), half, mark(30_000), 0, 30_000, false},
		"10000 stay although a backup has them":  {mark(50_000), half, mark(49_000), 0, 40_000, false},
		"few are committed":                      {mark(9_999), half, mark(9_000), 0, 0, false},
		"a backup of another stream has nothing": {mark(50_000), half, other(func(m *historyv1.Watermark) { m.Stream = "t" }), 0, 0, false},
		"a backup of another epoch has nothing":  {mark(50_000), half, other(func(m *historyv1.Watermark) { m.Epoch = 2 }), 0, 0, false},
		"no backup: an hour stays":               {mark(50_000), half, nil, 20_000, 20_000, false},
		"no backup: 10000 stay":                  {mark(50_000), half, nil, 49_000, 40_000, false},
		"no backup: all is recent":               {mark(50_000), half, nil, 1, 1, false},
		"nearly full: the backup is given up":    {mark(50_000), full, mark(1_000), 0, 20_001, true},
		"nearly full: 10000 are given up":        {mark(15_000), full, mark(15_000), 0, 15_000, true},
		"nearly full: but no uncommitted ones":   {mark(10), full, nil, 0, 10, true},
		"nearly full: the usual bound is enough": {mark(50_000), full, mark(30_000), 0, 30_000, false},
		"nothing is committed":                   {mark(0), full, nil, 0, 0, false},
		"no limit":                               {mark(50_000), extent{first: 1, last: 60_000, messages: 60_000, bytes: 1 << 40}, mark(30_000), 0, 30_000, false},
		"an empty stream":                        {mark(50_000), extent{first: 50_001, last: 50_000, maxBytes: 1}, mark(50_000), 0, 40_000, false},
	} {
		bound, pressed := purgeBelow(c.committed, c.stream, c.backup, c.recent)
		require.Equal(t, c.bound, bound, name)
		require.Equal(t, c.pressed, pressed && bound > 0, name)
	}
}

// Whatever the numbers are, nothing is purged that is not committed, nor the message at the watermark.
func TestPurgeNeverReachesTheWatermark(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		number := rapid.Uint64Range(0, 100_000)
		draw := func(what string) uint64 { return number.Draw(t, what) }
		committed := &historyv1.Watermark{Stream: "s", Sequence: draw("committed")}
		var backup *historyv1.Watermark
		if rapid.Bool().Draw(t, "marked") {
			backup = &historyv1.Watermark{Stream: "s", Sequence: draw("backup")}
		}
		stream := extent{first: draw("first"), messages: draw("messages"), bytes: draw("bytes"), maxBytes: draw("max")}
		stream.last = stream.first + stream.messages
		bound, pressed := purgeBelow(committed, stream, backup, draw("recent"))
		require.LessOrEqual(t, bound, committed.GetSequence())
		if !pressed {
			require.LessOrEqual(t, bound+keptCommands, max(committed.GetSequence(), keptCommands))
			if backup != nil {
				require.LessOrEqual(t, bound, backup.GetSequence())
			}
		}
	})
}

// A stream commits many times what it holds without refusing anything, and keeps the message at the watermark.
func TestStreamNeverRefusesForWhatIsCommitted(t *testing.T) {
	b := newBed(t, 1)
	const size = 1 << 20
	_, err := b.js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: broker.StreamName(0), Subjects: []string{broker.CommandSubject(0)}, MaxBytes: size, Discard: jetstream.DiscardNew,
	})
	require.NoError(t, err)
	w := b.startWorker(nil)
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g"))
	b.send(create)
	message := deliverytest.Text(strings.Repeat("x", 8000))
	bytes := func() uint64 {
		stream, err := b.js.Stream(t.Context(), broker.StreamName(0))
		require.NoError(t, err)
		return stream.CachedInfo().State.Bytes
	}
	total := 0
	for i := 0; total < 10*size; i++ {
		c := deliverytest.Command(create.GetConversationId(), "ann", 10+i, message)
		payload, err := c.MarshalVT()
		require.NoError(t, err)
		total += len(payload)
		b.putCommand(c) // fails when the stream refuses it
		if i%4 == 3 {
			b.eventually("committed", func() bool { return b.store.mark().GetSequence() == uint64(i+2) })
			// However slow this machine is: nothing but the owner makes room.
			b.eventually("there is room", func() bool { return bytes() < size*95/100 })
		}
	}
	require.Positive(t, w.count("purged_messages_total"))
	require.Positive(t, w.count("purged_early_messages_total"), "fewer than 10000 fit: it was nearly full")
	require.Zero(t, w.count("purge_failures_total"))
	w.stop()
	stream, err := b.js.Stream(t.Context(), broker.StreamName(0))
	require.NoError(t, err)
	_, err = stream.GetMsg(t.Context(), b.store.mark().GetSequence())
	require.NoError(t, err)
	b.startWorker(nil)
	require.Nil(t, b.send(deliverytest.Command(create.GetConversationId(), "ann", 5, deliverytest.Text("after it"))).GetError())
	b.store.verify(t)
}

// What lies below the backup's watermark is purged on a timer, and what a restore needs stays.
func TestPurgeBelowTheBackup(t *testing.T) {
	b := newBed(t, 1)
	w := b.startWorker(func(c *Config, _ *Deps) { c.PurgeInterval = 10 * time.Millisecond })
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g"))
	b.send(create)
	id := create.GetConversationId()
	const n = 12_000
	publisher, err := jetstream.New(b.nc, jetstream.WithPublishAsyncMaxPending(1024))
	require.NoError(t, err)
	for i := range n {
		payload, err := deliverytest.Command(id, "ann", 10+i, deliverytest.Text("x")).MarshalVT()
		require.NoError(t, err)
		_, err = publisher.PublishAsync(broker.CommandSubject(0), payload, jetstream.WithStallWait(patience))
		require.NoError(t, err)
	}
	b.eventually("committed", func() bool { return b.store.mark().GetSequence() == n+1 })
	first := func() uint64 {
		stream, err := b.js.Stream(t.Context(), broker.StreamName(0))
		require.NoError(t, err)
		return stream.CachedInfo().State.FirstSeq
	}
	require.EqualValues(t, 1, first(), "no backup, and all of it is of the last hour")
	mark := b.store.mark()
	mark.Sequence = 500
	_, err = b.store.MarkBackup(t.Context(), &historyv1.MarkBackupRequest{Marks: []*historyv1.BackupMark{{Watermark: mark}}})
	require.NoError(t, err)
	b.eventually("purged below the backup", func() bool { return first() == 500 })
	_, err = b.store.MarkBackup(t.Context(), &historyv1.MarkBackupRequest{})
	require.NoError(t, err)
	b.eventually("the last 10000 stay", func() bool { return first() == n+1-keptCommands })
	b.eventually("it is counted", func() bool { return w.count("purged_messages_total") == n-keptCommands })
	require.Zero(t, w.count("purged_early_messages_total"))
	w.stop()
	b.startWorker(nil)
	require.EqualValues(t, n+2, b.send(deliverytest.Command(id, "ann", 5, deliverytest.Text("after it"))).GetSeq())
}
