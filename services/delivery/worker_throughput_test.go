package delivery

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/services/delivery/deliverytest"
	"github.com/runnelhq/runnel/services/delivery/wake"
)

// BenchmarkPartition measures one owner that commits a backlog of messages. It includes all work of a worker for a
// message, with a real broker and a store in memory.
func BenchmarkPartition(b *testing.B) {
	bed := newBed(b, 1)
	require.NoError(b, broker.EnsureStreams(b.Context(), bed.js, bed.brokerConfig()))
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g", "bob", "cid"))
	bed.putCommand(create)
	publisher, err := jetstream.New(bed.nc, jetstream.WithPublishAsyncMaxPending(1024))
	require.NoError(b, err)
	for i := range b.N {
		payload, err := deliverytest.Command(create.GetConversationId(), "ann", 10+i, deliverytest.Text("a message of a usual length, somewhat more than a few words")).MarshalVT()
		require.NoError(b, err)
		_, err = publisher.PublishAsync(broker.CommandSubject(0), payload, jetstream.WithStallWait(time.Minute))
		require.NoError(b, err)
	}
	<-publisher.PublishAsyncComplete()
	done := wake.NewSignal()
	bed.quiet = func(seq uint64) {
		if seq == uint64(b.N)+1 {
			done.Raise()
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	bed.startWorker(nil)
	<-done
	b.StopTimer()
	bed.store.Mu.Lock()
	b.ReportMetric(float64(b.N)/float64(bed.store.Appends), "commands/append")
	bed.store.Mu.Unlock()
	require.Len(b, bed.store.Keys, b.N+1)
}
