package delivery

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	deliveryv1 "github.com/runnelhq/runnel/proto/runnel/delivery/v1"

	"github.com/runnelhq/runnel/services/delivery/source"
)

// event gives the recorder one committed event.
func (r *recorder) event(id string, seq uint64, at time.Time, traceparent string) {
	c := &commit{
		entries:   []source.Message{{Sequence: seq + 100, TimeNs: at.UnixNano() - 5e6}},
		plan:      &plan{events: []*conversationv1.Event{{ConversationId: id, Seq: seq}}, causes: []int{0}},
		committed: at, published: at.Add(30 * time.Microsecond),
	}
	if traceparent != "" {
		c.traceparents = []string{traceparent}
	}
	r.committed(c)
}

func (r *recorder) ask(id string, seq uint64) *deliveryv1.ExplainResponse {
	answer := &deliveryv1.ExplainResponse{}
	r.explain(id, seq, answer)
	return answer
}

// Whatever comes in whatever order: what is said to be remembered is, exactly, and memory does not grow.
func TestRecorderRemembersWhatItSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 20).Draw(t, "size")
		r := newRecorder(size, testTime)
		type key struct {
			id  string
			seq uint64
		}
		at := map[key]time.Time{}
		again := map[key]time.Time{}
		heads := map[string]uint64{}
		now := testTime
		for range rapid.IntRange(0, 100).Draw(t, "events") {
			now = now.Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "pause")) * time.Millisecond)
			id := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "conversation")
			if seq := heads[id]; seq > 0 && rapid.IntRange(0, 5).Draw(t, "told again") == 0 {
				r.republished([]*conversationv1.Event{{ConversationId: id, Seq: seq}}, now, nil)
				again[key{id, seq}] = now
				continue
			}
			heads[id]++
			committed := now.Add(-time.Duration(rapid.IntRange(0, 2).Draw(t, "late")) * time.Millisecond) // partitions overtake each other
			if committed.Before(testTime) {
				committed = testTime
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
	r := newRecorder(64, testTime)
	for seq := range uint64(10) {
		r.event("a", seq+1, testTime, traceparent(int(seq)))
		r.event("b", seq+1, testTime, "")
	}
	require.Equal(t, traceparent(9), r.ask("a", 10).GetCommit().GetTraceparent())
	require.Empty(t, r.ask("a", 1).GetCommit().GetTraceparent(), "that place was needed for a later one")
	require.NotNil(t, r.ask("a", 1).GetCommit())
	require.Empty(t, r.ask("b", 10).GetCommit().GetTraceparent())
}

func TestRecordingAllocatesNothing(t *testing.T) {
	r := newRecorder(100, testTime)
	c := &commit{
		entries: []source.Message{{Sequence: 1}}, plan: &plan{events: []*conversationv1.Event{{ConversationId: "a", Seq: 1}}, causes: []int{0}},
		committed: testTime, published: testTime,
	}
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		c.plan.events[0].Seq++
		r.committed(c)
	}))
}

func (w *worker) explain(t *testing.T, id string, seq uint64) *deliveryv1.ExplainResponse {
	t.Helper()
	answer, err := w.Explain(t.Context(), &deliveryv1.ExplainRequest{ConversationId: id, Seq: seq})
	require.NoError(t, err)
	return answer
}

func TestExplain(t *testing.T) {
	b := newBed(t, 2)
	before := time.Now()
	w := b.startWorker(func(c *Config, _ *Deps) { c.ExplainEntries = 100 })
	create := command("", "ann", 1, group("g", "bob"))
	id := create.GetConversationId()
	b.send(create)
	b.send(command(id, "ann", 2, text("hello")))
	b.awaitEvent(id, 2)
	var answer *deliveryv1.ExplainResponse
	b.eventually("recorded", func() bool { answer = w.explain(t, id, 2); return answer.GetCommit() != nil })
	commit := answer.GetCommit()
	require.Equal(t, w.worker, answer.GetWorker())
	require.True(t, answer.GetOwner())
	require.EqualValues(t, 2, commit.GetSequence())
	require.EqualValues(t, 1, commit.GetBatch())
	require.LessOrEqual(t, before.UnixNano(), commit.GetAcceptedNs())
	require.LessOrEqual(t, commit.GetAcceptedNs(), commit.GetCommittedNs())
	require.Less(t, commit.GetCommittedNs(), commit.GetPublishedNs())
	require.Zero(t, answer.GetRepublishedNs())
	require.LessOrEqual(t, answer.GetRemembersSinceMs(), time.Now().UnixMilli()+1)
	require.Len(t, answer.GetCursors(), 2)
	require.Equal(t, "ann", answer.GetCursors()[0].GetUserId())
	require.EqualValues(t, 2, answer.GetCursors()[0].GetReadSeq())
	require.Nil(t, w.explain(t, id, 3).GetCommit())
	b.mu.Lock()
	require.Equal(t, w.worker, b.lives[len(b.lives)-1].GetWorker())
	require.Equal(t, commit.GetCommittedNs(), b.lives[len(b.lives)-1].GetCommittedNs())
	b.mu.Unlock()

	// The next owner did not commit it; it knows that it told it again.
	w.stop()
	b.forget()
	w = b.startWorker(nil)
	b.awaitEvent(id, 2)
	b.eventually("recorded", func() bool { answer = w.explain(t, id, 2); return answer.GetRepublishedNs() > 0 })
	require.Nil(t, answer.GetCommit())
	b.mu.Lock()
	require.Empty(t, b.lives[0].GetWorker(), "who committed it is not known any more")
	require.Zero(t, b.lives[0].GetCommittedNs())
	b.mu.Unlock()

	for _, bad := range []*deliveryv1.ExplainRequest{{ConversationId: "x", Seq: 1}, {ConversationId: id}} {
		_, err := w.Explain(t.Context(), bad)
		require.Equal(t, codes.InvalidArgument, status.Code(err))
	}
}

// An event that could not be handed to the broker is not said to have been.
func TestExplainUnpublished(t *testing.T) {
	b := newBed(t, 1)
	w := b.startWorker(nil)
	create := command("", "ann", 1, group("g"))
	id := create.GetConversationId()
	b.send(create)
	o := w.owners[0]
	nc := b.connect()
	nc.Close()
	p := newPublisher(o)
	p.nc = nc
	events := []*conversationv1.Event{{ConversationId: id, Seq: 2}}
	unpublished := p.events(events, telling{committed: testTime})
	require.Contains(t, unpublished, id)
	w.recorder.committed(&commit{
		entries: []source.Message{{}}, plan: &plan{events: events, causes: []int{0}}, committed: testTime, published: testTime, unpublished: unpublished,
	})
	require.NotZero(t, w.explain(t, id, 2).GetCommit().GetCommittedNs())
	require.Zero(t, w.explain(t, id, 2).GetCommit().GetPublishedNs())
	w.recorder.republished(events, testTime, unpublished)
	require.Zero(t, w.explain(t, id, 2).GetRepublishedNs())
	w.recorder.republished(events, testTime, nil)
	require.NotZero(t, w.explain(t, id, 2).GetRepublishedNs())
}

func BenchmarkRecorder(b *testing.B) {
	r := newRecorder(50000, testTime)
	batch := &plan{}
	list := make([]source.Message, 512)
	for i := range list {
		batch.events = append(batch.events, &conversationv1.Event{ConversationId: fmt.Sprintf("g%026d", i%50)})
		batch.causes = append(batch.causes, i)
	}
	var seq uint64
	b.ReportAllocs()
	for b.Loop() {
		for _, event := range batch.events {
			seq++
			event.Seq = seq
		}
		r.committed(&commit{entries: list, plan: batch, committed: testTime, published: testTime})
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/512, "ns/event")
}
