package delivery

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/runnelhq/runnel/pkg/ids"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	deliveryv1 "github.com/runnelhq/runnel/proto/runnel/delivery/v1"

	"github.com/runnelhq/runnel/services/delivery/deliverytest"
	"github.com/runnelhq/runnel/services/delivery/flight"
	"github.com/runnelhq/runnel/services/delivery/publish"
	"github.com/runnelhq/runnel/services/delivery/source"
)

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
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g", "bob"))
	id := create.GetConversationId()
	b.send(create)
	b.send(deliverytest.Command(id, "ann", 2, deliverytest.Text("hello")))
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

	// The next owner did not commit the event. It reports that it republished the event.
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

// An event that could not be published is not explained as published.
func TestExplainUnpublished(t *testing.T) {
	b := newBed(t, 1)
	w := b.startWorker(nil)
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g"))
	id := create.GetConversationId()
	b.send(create)
	nc := b.connect()
	nc.Close()
	p := publish.New(nc, "w", slog.New(slog.DiscardHandler), w.Service.metrics)
	events := []*conversationv1.Event{{ConversationId: id, Seq: 2}}
	unpublished := p.Events(events, publish.Origin{Committed: testTime})
	require.Contains(t, unpublished, ids.Conversation(id))
	w.recorder.RecordCommit(&flight.Commit{
		Messages: []source.Message{{}}, Events: events, Causes: []int{0}, Committed: testTime, Published: testTime, Unpublished: unpublished,
	})
	require.NotZero(t, w.explain(t, id, 2).GetCommit().GetCommittedNs())
	require.Zero(t, w.explain(t, id, 2).GetCommit().GetPublishedNs())
	w.recorder.RecordRepublished(events, testTime, unpublished)
	require.Zero(t, w.explain(t, id, 2).GetRepublishedNs())
	w.recorder.RecordRepublished(events, testTime, nil)
	require.NotZero(t, w.explain(t, id, 2).GetRepublishedNs())
}
