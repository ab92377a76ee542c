package flight

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/runnelhq/runnel/pkg/ids"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	deliveryv1 "github.com/runnelhq/runnel/proto/runnel/delivery/v1"

	"github.com/runnelhq/runnel/services/delivery/source"
)

var recordTime = time.Unix(1_790_000_000, 0)

// event adds one committed event to the recorder.
func (r *Recorder) event(id string, seq uint64, at time.Time, traceparent string) {
	c := &Commit{
		Messages: []source.Message{{Sequence: ids.Sequence(seq + 100), TimeNs: at.UnixNano() - 5e6}},
		Events:   []*conversationv1.Event{{ConversationId: id, Seq: seq}}, Causes: []int{0},
		Committed: at, Published: at.Add(30 * time.Microsecond),
	}
	if traceparent != "" {
		c.Traceparents = []string{traceparent}
	}
	r.RecordCommit(c)
}

func (r *Recorder) ask(id string, seq uint64) *deliveryv1.ExplainResponse {
	answer := &deliveryv1.ExplainResponse{}
	r.Explain(ids.Conversation(id), ids.Seq(seq), answer)
	return answer
}

// Whatever the order of records, all commits since the reported time are kept, and memory does not grow.
func TestRecorderRemembersWhatItSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 20).Draw(t, "size")
		r := NewRecorder(size, recordTime)
		type key struct {
			id  string
			seq uint64
		}
		at := map[key]time.Time{}
		again := map[key]time.Time{}
		heads := map[string]uint64{}
		now := recordTime
		for range rapid.IntRange(0, 100).Draw(t, "events") {
			now = now.Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "pause")) * time.Millisecond)
			id := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "conversation")
			if seq := heads[id]; seq > 0 && rapid.IntRange(0, 5).Draw(t, "told again") == 0 {
				r.RecordRepublished([]*conversationv1.Event{{ConversationId: id, Seq: seq}}, now, nil)
				again[key{id, seq}] = now
				continue
			}
			heads[id]++
			committed := now.Add(-time.Duration(rapid.IntRange(0, 2).Draw(t, "late")) * time.Millisecond) // the partitions commit in random order
			if committed.Before(recordTime) {
				committed = recordTime
			}
			r.event(id, heads[id], committed, "")
			at[key{id, heads[id]}] = committed
		}
		require.Len(t, r.records, size)
		for k, committed := range at {
			answer := r.ask(k.id, k.seq)
			if answer.GetCommit() == nil {
				require.Less(t, committed.UnixMilli(), answer.GetRemembersSinceMs(), "%v was forgotten", k)
				continue
			}
			require.Equal(t, committed.UnixNano(), answer.GetCommit().GetCommittedNs())
			require.Equal(t, committed.UnixNano()+30_000, answer.GetCommit().GetPublishedNs())
			require.Equal(t, k.seq+100, answer.GetCommit().GetSequence())
			require.EqualValues(t, 1, answer.GetCommit().GetBatch())
			if told, was := again[k]; was {
				require.Equal(t, told.UnixNano(), answer.GetRepublishedNs())
			} else {
				require.Zero(t, answer.GetRepublishedNs())
			}
		}
		require.Nil(t, r.ask("a", heads["a"]+1).GetCommit())
	})
}

func TestRecorderKeepsTraces(t *testing.T) {
	r := NewRecorder(64, recordTime)
	for seq := range uint64(10) {
		r.event("a", seq+1, recordTime, sampledTraceparent(int(seq)))
		r.event("b", seq+1, recordTime, "")
	}
	require.Equal(t, sampledTraceparent(9), r.ask("a", 10).GetCommit().GetTraceparent())
	require.Empty(t, r.ask("a", 1).GetCommit().GetTraceparent(), "its place was used for a later trace")
	require.NotNil(t, r.ask("a", 1).GetCommit())
	require.Empty(t, r.ask("b", 10).GetCommit().GetTraceparent())
}

func TestRecordingAllocatesNothing(t *testing.T) {
	r := NewRecorder(100, recordTime)
	c := &Commit{
		Messages: []source.Message{{Sequence: 1}}, Events: []*conversationv1.Event{{ConversationId: "a", Seq: 1}}, Causes: []int{0},
		Committed: recordTime, Published: recordTime,
	}
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		c.Events[0].Seq++
		r.RecordCommit(c)
	}))
}

func BenchmarkRecorder(b *testing.B) {
	r := NewRecorder(50000, recordTime)
	batch := &Commit{Committed: recordTime, Published: recordTime}
	list := make([]source.Message, 512)
	for i := range list {
		batch.Events = append(batch.Events, &conversationv1.Event{ConversationId: fmt.Sprintf("g%026d", i%50)})
		batch.Causes = append(batch.Causes, i)
	}
	batch.Messages = list
	var seq uint64
	b.ReportAllocs()
	for b.Loop() {
		for _, event := range batch.Events {
			seq++
			event.Seq = seq
		}
		r.RecordCommit(batch)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/512, "ns/event")
}

func sampledTraceparent(n int) string { return fmt.Sprintf("00-%032x-%016x-01", n+0xabc, n+0xdef) }
