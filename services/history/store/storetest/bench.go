package storetest

import (
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/ids"
	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// benchConversations is the number of groups in the first benchmark.
const benchConversations = 500

// Benchmark measures appends of 1, 16 and 100 events, in one partition and in all partitions at once. In addition to the
// time per append it reports events/s, the process's CPU time per event (without a PostgreSQL server's), and p50 and p99
// of an append.
func Benchmark(b *testing.B, subject Subject) {
	for _, partitions := range []int{1, Partitions} {
		for _, size := range []int{1, 16, 100} {
			b.Run(fmt.Sprintf("partitions=%d/events=%d", partitions, size), func(b *testing.B) { benchmark(b, subject, partitions, size) })
		}
	}
}

func benchmark(b *testing.B, subject Subject, partitions, size int) {
	b.Helper()
	db := subject.New(b)
	lanes := make([]*lane, partitions)
	for p := range lanes {
		lanes[p] = newLane(b, db, ids.Partition(p), benchConversations/partitions)
	}
	tokens := make(chan struct{}, b.N)
	for range b.N {
		tokens <- struct{}{}
	}
	close(tokens)
	b.ResetTimer()
	before := cpu()
	var running sync.WaitGroup
	for _, l := range lanes {
		running.Go(func() {
			for range tokens {
				l.append(b, size)
			}
		})
	}
	running.Wait()
	b.StopTimer()
	spent := cpu() - before
	var took []time.Duration
	for _, l := range lanes {
		took = append(took, l.took...)
	}
	slices.Sort(took)
	events := float64(b.N * size)
	b.ReportMetric(events/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(spent.Microseconds())/events, "cpu-µs/event")
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}

// lane is one partition's worker with its conversations.
type lane struct {
	*Worker
	ids  []string
	next int
	took []time.Duration
}

func newLane(b *testing.B, db *Database, partition ids.Partition, conversations int) *lane {
	b.Helper()
	l := &lane{Worker: NewWorker(db, partition, &Clock{n: int64(partition) << 32})}
	for range conversations {
		create := l.CreateGroup("alice", "a group of four", "bob", "carol", "dave")
		l.Commit(b, create)
		l.ids = append(l.ids, create.GetConversationId())
	}
	return l
}

// text is a message of 128 bytes, as in the benchmarks of comparable systems.
const text = "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"

func (l *lane) append(b *testing.B, size int) {
	b.Helper()
	commands := make([]*brokerv1.Command, size)
	for i := range commands {
		l.next++
		commands[i] = l.Command(l.ids[l.next*7919%len(l.ids)], "alice", Message(text))
	}
	batch := l.Batch(l.Apply(b, commands...)...)
	begin := time.Now()
	_, err := l.Append(b.Context(), batch)
	l.took = append(l.took, time.Since(begin))
	require.NoError(b, err)
}

func cpu() time.Duration {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkRead measures reading a page of the 100 newest events of one of 500 conversations. The number of readers is
// the number of processors.
func BenchmarkRead(b *testing.B, subject Subject) {
	b.Helper()
	db := subject.New(b)
	l := newLane(b, db, 0, benchConversations)
	for range 120 {
		l.append(b, benchConversations)
	}
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			page, err := db.Read(b.Context(), &historyv1.ReadRequest{ConversationId: l.ids[i*7919%len(l.ids)], Viewer: "bob", Backward: true, Limit: 100})
			if err != nil || len(page.GetEvents()) != 100 {
				b.Errorf("%d events, %v", len(page.GetEvents()), err)
			}
		}
	})
}

// BenchmarkBytes reports the size of a plain message in the database: the bytes of its row and of its entry in each index.
func BenchmarkBytes(b *testing.B, subject Subject) {
	b.Helper()
	db := subject.New(b)
	lanes := make([]*lane, Partitions)
	for p := range lanes {
		lanes[p] = newLane(b, db, ids.Partition(p), benchConversations/Partitions)
	}
	const rounds, size = 40, 100
	before := db.EventBytes(b)
	for range rounds {
		for _, l := range lanes {
			l.append(b, size)
		}
	}
	after := db.EventBytes(b)
	total := 0.0
	for name, bytes := range after {
		perEvent := float64(bytes-before[name]) / (rounds * size * Partitions)
		b.ReportMetric(perEvent, name+"-B/event")
		total += perEvent
	}
	b.ReportMetric(total, "B/event")
	b.ReportMetric(0, "ns/op")
}
