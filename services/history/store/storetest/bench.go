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

// Benchmark measures appends of 1, 16 and 100 events, to 1, 4 and all partitions at once. In addition to the time per append
// it reports events/s, the CPU per event of this process and of a PostgreSQL server, the commits per append, and p50 and p99
// of an append.
func Benchmark(b *testing.B, subject Subject) {
	for _, partitions := range []int{1, 4, Partitions} {
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
	meter := startMeter(b, db)
	b.ResetTimer()
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
	var took []time.Duration
	for _, l := range lanes {
		took = append(took, l.took...)
	}
	meter.report(b.N*size, b.N, took)
}

// Usage is the total consumption of a database since it was created.
type Usage struct {
	// Commits is the number of committed transactions.
	Commits int
	// CPU is the CPU time of the database's own processes; 0 if it has no processes.
	CPU time.Duration
}

// meter measures the cost of what happens between startMeter and report.
type meter struct {
	b     *testing.B
	db    *Database
	cpu   time.Duration
	usage Usage
}

func startMeter(b *testing.B, db *Database) *meter {
	b.Helper()
	return &meter{b: b, db: db, usage: db.Usage(b), cpu: cpu()}
}

// report reports the cost of events in a number of appends. took contains the durations for the percentiles.
func (m *meter) report(events, appends int, took []time.Duration) {
	m.b.Helper()
	spent, usage := cpu()-m.cpu, m.db.Usage(m.b)
	slices.Sort(took)
	m.b.ReportMetric(float64(events)/m.b.Elapsed().Seconds(), "events/s")
	m.b.ReportMetric(float64(spent.Microseconds())/float64(events), "cpu-µs/event")
	if usage.CPU > 0 {
		m.b.ReportMetric(float64((usage.CPU-m.usage.CPU).Microseconds())/float64(events), "server-cpu-µs/event")
	}
	m.b.ReportMetric(float64(usage.Commits-m.usage.Commits)/float64(appends), "commits/append")
	m.b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	m.b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
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
	batch := l.batch(b, size)
	begin := time.Now()
	_, err := l.Append(b.Context(), batch)
	l.took = append(l.took, time.Since(begin))
	require.NoError(b, err)
}

// batch makes the next append of a number of messages.
func (l *lane) batch(b *testing.B, size int) *historyv1.AppendRequest {
	b.Helper()
	commands := make([]*brokerv1.Command, size)
	for i := range commands {
		l.next++
		commands[i] = l.Command(l.ids[l.next*7919%len(l.ids)], "alice", Message(text))
	}
	return l.Batch(l.Apply(b, commands...)...)
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
