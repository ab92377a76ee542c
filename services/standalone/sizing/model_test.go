package sizing

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// figures are round, so that tests can compute with them.
var figures = Figures{
	Gateway: 100, NATS: 30, Delivery: 30, History: 30, PostgreSQL: 50, EachDelivery: 10, Connect: 500,
	ConnectionBytes: 12_000, ConversationBytes: 2_000, ClientBytes: 3_000, StreamBytes: 400, StoreBytes: 600,
}

func load() Load {
	return Load{Connections: 10_000, Messages: 1_000, Conversations: 100_000, Members: 4, Days: 30, StreamHours: 24, Minutes: 30}
}

func machines() Machines {
	return Machines{
		Cores: 16, MemoryGiB: 64, DiskGiB: 4096, NetworkMBs: 1200, DiskMBs: 1000, Utilization: 0.5,
		Partitions: 16, Replicas: 3, NATSClusters: 1, Databases: 1,
	}
}

func compute(t require.TestingT, l Load, m Machines) *Plan {
	p, err := Compute(figures, l, m)
	require.NoError(t, err)
	return p
}

func TestTheFiguresOfTheBenchmarkAreComplete(t *testing.T) {
	f, err := Measured()
	require.NoError(t, err)
	require.False(t, f.Date.IsZero())
	require.NotEmpty(t, f.CPU)
	require.NotEmpty(t, f.Commit)
	require.NotZero(t, f.Cores)
	_, err = parse([]byte(`{"figures": []}`))
	require.ErrorContains(t, err, "gateway cpu")
	_, err = parse([]byte(`{`))
	require.Error(t, err)
}

// Every kind of load costs at least as much when there is more of it, in every part and in total, and uses every limit at least as
// much.
func TestMoreCostsMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l, m := load(), machines()
		fields := reflect.ValueOf(&l).Elem()
		for _, field := range fields.Fields() {
			field.SetFloat(field.Float() * rapid.Float64Range(0.001, 1000).Draw(t, "factor"))
		}
		before := compute(t, l, m)
		grown := rapid.IntRange(0, fields.NumField()-1).Draw(t, "grown")
		if fields.Type().Field(grown).Name == "Minutes" { // connections that last longer cost less
			fields.Field(grown).SetFloat(fields.Field(grown).Float() / 2)
		} else {
			fields.Field(grown).SetFloat(fields.Field(grown).Float() * 2)
		}
		after := compute(t, l, m)
		for i, part := range append(after.Parts, after.Total()) {
			was := append(before.Parts, before.Total())[i]
			for what, pair := range map[string][2]float64{
				"cores": {was.Cores, part.Cores}, "memory": {was.MemoryGiB, part.MemoryGiB}, "disk": {was.DiskGiB, part.DiskGiB},
				"network": {was.NetworkMBs, part.NetworkMBs}, "writes": {was.DiskMBs, part.DiskMBs}, "machines": {was.Machines, part.Machines},
			} {
				require.GreaterOrEqual(t, pair[1], pair[0], "%s of %s", what, part.Name)
			}
		}
		use := map[string]float64{}
		for _, limit := range before.Limits {
			use[limit.What] = limit.Use
		}
		for _, limit := range after.Limits {
			require.GreaterOrEqual(t, limit.Use*(1+1e-9), use[limit.What], limit.What)
		}
	})
}

// The causes add up to a part's processors, and the parts to the total.
func TestTheBreakdownAddsUp(t *testing.T) {
	p := compute(t, load(), machines())
	var cores, memory float64
	for _, part := range p.Parts {
		var causes float64
		for _, cause := range part.Causes {
			causes += cause.Cores
		}
		require.InDelta(t, part.Cores, causes, 1e-9, part.Name)
		cores, memory = cores+part.Cores, memory+part.MemoryGiB
	}
	require.InDelta(t, cores, p.Total().Cores, 1e-9)
	require.InDelta(t, memory, p.Total().MemoryGiB, 1e-9)
	// 1,000 messages of 100 µs; 10,000 connections with a heartbeat of 15 µs each 25 s; 10,000 in 30 minutes at 500 µs.
	require.InDelta(t, 0.1+0.006+10_000.0/1800*0.0005, p.Parts[0].Cores, 1e-9)
	require.InDelta(t, 0.09, p.Parts[1].Cores, 1e-9, "three copies")
	require.InDelta(t, 1000*600*86400*30/float64(gib), p.Parts[4].DiskGiB, 1e-6)
}

func TestWhatBreaksFirst(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Load, *Machines)
		want   string
	}{
		"messages that are kept for a month":     {func(l *Load, _ *Machines) { l.Messages = 20_000 }, "disk of a PostgreSQL server"},
		"messages that are kept for an hour":     {func(l *Load, _ *Machines) { l.Messages, l.Days, l.StreamHours = 200_000, 0.04, 0.1 }, "memory of a PostgreSQL server"},
		"one partition":                          {func(l *Load, m *Machines) { l.Days, l.StreamHours, m.Partitions, m.MemoryGiB = 0.04, 0.1, 1, 4096 }, "the order of one partition"},
		"quiet conversations":                    {func(l *Load, _ *Machines) { l.Messages, l.Conversations = 10, 500_000_000 }, "memory of a NATS server"},
		"a slow database with much memory":       {func(l *Load, m *Machines) { l.Days, l.StreamHours, m.Cores, m.Partitions = 0.01, 0.1, 0.1, 1000 }, "processors of a PostgreSQL server"},
		"conversations of many members":          {func(l *Load, m *Machines) { l.Members, l.Days, l.Conversations, m.NetworkMBs = 1000, 0.01, 1, 1 }, "network of a NATS server"},
		"streams that no backup allows to purge": {func(l *Load, _ *Machines) { l.Days, l.StreamHours = 0.01, 72000 }, "disk of a NATS server"},
		"a disk that writes slowly":              {func(l *Load, m *Machines) { l.Days, l.StreamHours, m.DiskMBs = 0.01, 0.1, 1 }, "writes of a PostgreSQL server's disk"},
	} {
		l, m := load(), machines()
		c.change(&l, &m)
		p := compute(t, l, m)
		require.Equal(t, c.want, p.Limits[0].What, "%s: %v", name, p.Limits[:3])
	}
}

// Twice the databases, clusters or partitions halve what each takes of its limit.
func TestDividingMovesTheLimit(t *testing.T) {
	l, m := load(), machines()
	l.Messages = 20_000
	use := func(m Machines, what string) float64 {
		for _, limit := range compute(t, l, m).Limits {
			if limit.What == what {
				return limit.Use
			}
		}
		require.Fail(t, "no such limit", what)
		return 0
	}
	divided := m
	divided.Databases, divided.NATSClusters, divided.Partitions = 2, 2, 32
	for _, what := range []string{
		"disk of a PostgreSQL server", "processors of a PostgreSQL server", "processors of a NATS server", "disk of a NATS server", "the order of one partition",
	} {
		require.InDelta(t, use(m, what)/2, use(divided, what), 1e-9, what)
	}
	require.False(t, compute(t, l, m).Fits())
	fitting, ok := Divide(figures, l, m)
	require.True(t, ok)
	require.True(t, compute(t, l, fitting).Fits())
	require.Greater(t, fitting.Databases, 1.0)
	fitting.Databases--
	require.False(t, compute(t, l, fitting).Fits(), "no more than needed")
	l.Messages = 1e12
	_, ok = Divide(figures, l, m)
	require.False(t, ok)
}

func TestNonsenseIsRefused(t *testing.T) {
	l, m := load(), machines()
	l.Messages = -1
	_, err := Compute(figures, l, m)
	require.ErrorIs(t, err, ErrNotPositive)
	m.Utilization = 1.5
	_, err = Compute(figures, load(), m)
	require.ErrorIs(t, err, ErrUtilization)
	m = machines()
	m.Databases = 17
	_, err = Compute(figures, load(), m)
	require.ErrorIs(t, err, ErrPartitions)
}

func TestAPlanIsJSON(t *testing.T) {
	text, err := json.Marshal(compute(t, load(), machines()))
	require.NoError(t, err)
	require.Contains(t, string(text), `"messages_per_second":1000`)
	require.NotContains(t, string(text), "divides")
}
