package delivery

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/services/delivery/deliverytest"
	"github.com/runnelhq/runnel/services/delivery/purge"
)

// Commands many times the stream's size limit pass through the stream, and the stream refuses none. The message at the
// watermark stays in the stream.
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
		b.putCommand(c) // fails if the stream refuses the command
		if i%4 == 3 {
			b.eventually("committed", func() bool { return b.store.Mark().GetSequence() == uint64(i+2) })
			// Only the owner makes room, however slow the machine is.
			b.eventually("there is room", func() bool { return bytes() < size*95/100 })
		}
	}
	require.Positive(t, w.count("purged_messages_total"))
	require.Positive(t, w.count("purged_early_messages_total"), "fewer than 10000 fit: it was nearly full")
	require.Zero(t, w.count("purge_failures_total"))
	w.stop()
	stream, err := b.js.Stream(t.Context(), broker.StreamName(0))
	require.NoError(t, err)
	_, err = stream.GetMsg(t.Context(), b.store.Mark().GetSequence())
	require.NoError(t, err)
	b.startWorker(nil)
	require.Nil(t, b.send(deliverytest.Command(create.GetConversationId(), "ann", 5, deliverytest.Text("after it"))).GetError())
	b.store.Verify(t)
}

// Messages below the backup's watermark are purged periodically. Messages that a restore needs stay.
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
	b.eventually("committed", func() bool { return b.store.Mark().GetSequence() == n+1 })
	first := func() uint64 {
		stream, err := b.js.Stream(t.Context(), broker.StreamName(0))
		require.NoError(t, err)
		return stream.CachedInfo().State.FirstSeq
	}
	require.EqualValues(t, 1, first(), "no backup, and all of it is of the last hour")
	mark := b.store.Mark()
	mark.Sequence = 500
	_, err = b.store.MarkBackup(t.Context(), &historyv1.MarkBackupRequest{Marks: []*historyv1.BackupMark{{Watermark: mark}}})
	require.NoError(t, err)
	b.eventually("purged below the backup", func() bool { return first() == 500 })
	_, err = b.store.MarkBackup(t.Context(), &historyv1.MarkBackupRequest{})
	require.NoError(t, err)
	b.eventually("the last 10000 stay", func() bool { return first() == n+1-purge.KeptCommands })
	b.eventually("it is counted", func() bool { return w.count("purged_messages_total") == n-purge.KeptCommands })
	require.Zero(t, w.count("purged_early_messages_total"))
	w.stop()
	b.startWorker(nil)
	require.EqualValues(t, n+2, b.send(deliverytest.Command(id, "ann", 5, deliverytest.Text("after it"))).GetSeq())
}
