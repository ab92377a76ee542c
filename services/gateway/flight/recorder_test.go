package flight

import (
	"math"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/ids"
	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"
)

const (
	stepQueued = gatewayv1.StepKind_STEP_KIND_QUEUED
	stepRouted = gatewayv1.StepKind_STEP_KIND_ROUTED
)

// trail returns the steps of one connection that cover a seq.
func (r *Recorder) trail(conn uint32, key Key, seq uint64) []*gatewayv1.Step {
	trail := &gatewayv1.Trail{}
	r.ExplainConnection(trail, conn, key, ids.Seq(seq))
	return trail.GetSteps()
}

func TestRecorderKeepsTheNewestSteps(t *testing.T) {
	r := NewRecorder(recorderShards * 4)
	key, begun := r.KeyOf("c"), time.Unix(1000, 0)
	for i := range 6 {
		seq := ids.Seq(i + 1)
		r.Subscription(stepQueued, begun.Add(time.Duration(i)*time.Second), key, 5, uint32(seq), seq, seq)
	}
	require.Empty(t, r.trail(5, key, 1))
	require.Empty(t, r.trail(5, key, 2))
	require.Len(t, r.trail(5, key, 3), 1)
	require.Len(t, r.trail(5, key, 6), 1)
	require.Equal(t, begun.Add(time.Second).UnixNano(), r.ofConn(5).look(func(*step) {}), "no step since the second one was overwritten")
	require.Empty(t, r.trail(5+recorderShards, key, 6), "another connection of the same shard")
	require.Empty(t, r.trail(5, r.KeyOf("d"), 6), "another conversation")
}

func TestRecorderSplitsLongStretches(t *testing.T) {
	r := NewRecorder(recorderShards * 4)
	key := r.KeyOf("c")
	r.Room(stepRouted, time.Now(), key, 1, 2*maxStretch+1)
	for _, seq := range []uint64{1, maxStretch, maxStretch + 1, 2 * maxStretch, 2*maxStretch + 1} {
		answer := &gatewayv1.ExplainResponse{}
		r.ExplainRoom(answer, key, ids.Seq(seq))
		require.Len(t, answer.GetSteps(), 1, "%d", seq)
	}
	beyond := &gatewayv1.ExplainResponse{}
	r.ExplainRoom(beyond, key, 2*maxStretch+2)
	require.Empty(t, beyond.GetSteps())
}

// TestAWriteIsTheFirstThatWentFarEnough records writes in every possible order, including before the events that they
// wrote.
func TestAWriteIsTheFirstThatWentFarEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRecorder(recorderShards * 16)
		key, begun := r.KeyOf("c"), time.Now()
		at := func(s int) time.Time {
			time.Sleep(time.Until(begun.Add(time.Duration(s) * time.Second)))
			return time.Now()
		}
		r.Subscription(stepQueued, at(1), key, 1, 6, 9, 9)
		at(2)
		r.Written(1, 7)
		r.Subscription(stepQueued, begun.Add(time.Second), key, 1, 7, 10, 12)
		r.Subscription(stepQueued, at(3), key, 1, 9, 13, 13)
		r.Subscription(stepQueued, at(4), key, 1, 10, 14, 14)
		at(5)
		r.Written(1, 9)
		require.Equal(t, begun.Add(2*time.Second).UnixNano(), r.trail(1, key, 11)[1].GetTimeNs())
		require.Equal(t, uint64(10), r.trail(1, key, 11)[1].GetFirst())
		require.Equal(t, begun.Add(5*time.Second).UnixNano(), r.trail(1, key, 13)[1].GetTimeNs())
		require.Len(t, r.trail(1, key, 14), 1, "queued and never written")
	})
}

func TestRecorderMarksMayOverflow(t *testing.T) {
	r := NewRecorder(recorderShards * 16)
	key := r.KeyOf("c")
	r.Subscription(stepQueued, time.Unix(1, 0), key, 1, ^uint32(0), 1, 1)
	r.Written(1, 1)
	require.Len(t, r.trail(1, key, 1), 2)
}

func TestRecorderThatIsOffRemembersNothing(t *testing.T) {
	r := NewRecorder(0)
	key := r.KeyOf("c")
	r.Room(stepRouted, time.Now(), key, 1, 1)
	r.Subscription(stepQueued, time.Now(), key, 1, 1, 1, 1)
	r.Written(1, 1)
	r.Committed(key, "w", 1, 1, 1)
	before := time.Now().UnixNano()
	require.GreaterOrEqual(t, r.ExplainRoom(&gatewayv1.ExplainResponse{}, key, 1), before)
	require.Empty(t, r.trail(1, key, 1))
}

func TestWorkersAreNamedUntilThereAreTooMany(t *testing.T) {
	w := &workers{}
	first := w.number("w0")
	for i := range maxWorkers {
		number := w.number("w" + strconv.Itoa(i))
		require.Equal(t, number, w.number("w"+strconv.Itoa(i)))
		require.Equal(t, "w"+strconv.Itoa(i), w.name(number))
	}
	w.number("one more")
	require.Empty(t, w.name(first))
	require.Equal(t, "one more", w.name(first+maxWorkers))
	require.Len(t, w.names, maxWorkers)
}

func TestRecordingAllocatesNothing(t *testing.T) {
	r := NewRecorder(recorderShards * 4)
	key, now := r.KeyOf("c"), time.Now()
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		r.Subscription(stepQueued, now, key, 1, 1, 1, 3)
		r.Written(1, 1)
		r.Room(stepRouted, now, key, 1, 1)
		r.Committed(key, "worker", 1, 1, 1)
	}))
}

func TestTheClosedLogKeepsTheNewest(t *testing.T) {
	e := NewClosedLog(3 * stepsPerClosed)
	begun := time.Now()
	for i := range 5 {
		user := ids.User("bob")
		if i == 3 {
			user = "cem"
		}
		e.Add(Closed{User: user, Number: uint32(i), ClosedAt: begun.Add(time.Duration(i) * time.Second)})
	}
	found, since := e.Of("bob")
	require.Len(t, found, 2)
	require.Equal(t, uint32(2), found[0].Number)
	require.Equal(t, uint32(4), found[1].Number)
	require.Equal(t, begun.Add(time.Second), since)
	none := NewClosedLog(0)
	none.Add(Closed{User: "bob", ClosedAt: begun})
	found, since = none.Of("bob")
	require.Empty(t, found)
	require.Equal(t, begun, since)
}

func BenchmarkRecorder(b *testing.B) {
	r := NewRecorder(196608)
	key, now := r.KeyOf("c"), time.Now()
	b.Run("note", func(b *testing.B) {
		b.ReportAllocs()
		for i := range b.N {
			r.Subscription(stepQueued, now, key, uint32(i), uint32(i), 1, 1)
		}
	})
	b.Run("note with a time", func(b *testing.B) {
		b.ReportAllocs()
		for i := range b.N {
			r.Written(uint32(i), uint32(i))
		}
	})
	b.Run("note in parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for i := uint32(0); pb.Next(); i++ {
				r.Subscription(stepQueued, now, key, i, i, 1, 1)
			}
		})
	})
	b.Run("explain", func(b *testing.B) {
		for range b.N {
			r.trail(5, key, 1)
		}
	})
}

// A worker's live message may claim a stretch of any length: recording it takes bounded time.
func TestRecorderBoundsAStretch(t *testing.T) {
	r := NewRecorder(recorderShards * 4)
	key := r.KeyOf("c")
	r.Room(stepRouted, time.Now(), key, 1, math.MaxUint64)
	answer := &gatewayv1.ExplainResponse{}
	r.ExplainRoom(answer, key, math.MaxUint64)
	require.Len(t, answer.GetSteps(), 1, "the end of the stretch is kept")
}
