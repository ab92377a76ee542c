package commit

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	deliveryv1 "github.com/runnelhq/runnel/proto/runnel/delivery/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/delivery/deliverytest"
	"github.com/runnelhq/runnel/services/delivery/source"
)

const (
	none     = conversationv1.ErrorCode_ERROR_CODE_UNSPECIFIED
	notFound = conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND
	dead     = conversationv1.ErrorCode_ERROR_CODE_DEAD_LETTERED
	unknown  = conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE
	conflict = conversationv1.ErrorCode_ERROR_CODE_IDEMPOTENCY_CONFLICT
)

// After a batch is committed by one append, the cache, the watermark, the metrics, the recorder, the senders and the
// members have its results.
func TestCommitted(t *testing.T) {
	b := setup(t)
	late := text(4, "late")
	late.NotAfterMs = 1
	silent := text(6, "no gateway waits for it")
	silent.Inbox = ""
	batch := messages(t, 11, create, text(2, "hello"), intruder(3), late, text(2, "hello"), silent)
	batch = append(batch, source.Decode(17, 17e6, []byte("garbage")))
	b.HeardLast(20)
	require.Equal(t, [][2]ids.Sequence{{0, 20}}, b.host.positions)
	b.commit(batch)

	require.Len(t, b.store.appends, 1)
	in := b.store.appends[0]
	require.True(t, in.GetBeginEpoch())
	require.Len(t, in.GetEvents(), 3)
	require.Equal(t, []uint64{11, 12, 16}, in.GetSequences())
	require.Len(t, in.GetRefusals(), 1)
	require.Len(t, in.GetDeadLetters(), 1)
	require.NotEmpty(t, in.GetEffects())
	mark := b.store.Mark()
	require.True(t, proto.Equal(&historyv1.Watermark{Stream: "s", Sequence: 17, TimeNs: 17e6, Epoch: 1}, mark))

	// The worker.
	require.Equal(t, [][2]ids.Sequence{{0, 20}, {17, 20}}, b.host.positions)
	require.Len(t, b.host.marks, 1)
	require.True(t, proto.Equal(mark, b.host.marks[0]))
	require.Equal(t, 1, b.host.calms)
	require.Empty(t, b.host.alarms)
	require.Zero(t, b.host.waits)

	// Memory.
	require.EqualValues(t, 3, b.Cache.State(group).Head)
	require.EqualValues(t, 3, b.Cache.Cursors(group)[0].GetReadSeq(), "senders have read their own messages")
	require.Equal(t, b.clock.Add(-time.Millisecond).UnixMilli(), b.Cache.Cursors(group)[0].GetReadTimeMs())
	require.NotNil(t, b.Refusals.Find(source.KeyOf(intruder(3)), 0, 17))

	// Senders and members.
	results, events := b.told()
	require.Equal(t, []conversationv1.ErrorCode{none, none, notFound, unknown, none}, codesOf(results))
	require.Equal(t, []uint64{1, 2, 0, 0, 2}, seqsOf(results))
	require.True(t, results[4].GetOutcome().GetRepeated())
	require.False(t, results[1].GetOutcome().GetRepeated())
	require.Equal(t, "eve", results[2].GetSender())
	require.Equal(t, intruder(3).GetSalt(), results[2].GetSalt())
	require.Len(t, events, 3)

	// The recorder.
	var explained deliveryv1.ExplainResponse
	b.Recorder.Explain(group, 2, &explained)
	require.EqualValues(t, 12, explained.GetCommit().GetSequence())
	require.EqualValues(t, 7, explained.GetCommit().GetBatch())
	require.Equal(t, int64(12_000_000), explained.GetCommit().GetAcceptedNs())
	require.Equal(t, int64(time.Millisecond), explained.GetCommit().GetPublishedNs()-explained.GetCommit().GetCommittedNs())

	// Operators.
	for outcome, n := range map[string]int{"committed": 3, "repeated": 1, "not_found": 1, "late": 1, "dead_lettered": 1} {
		require.Equal(t, n, b.count("commands_total", outcome), outcome)
	}
	require.Equal(t, 7, b.count("batch_commands", ""))
	require.Equal(t, 1, b.count("refusals_remembered", ""))
	require.Zero(t, b.count("append_retries_total", ""))
	_, n := b.metric("append_seconds", "")
	require.Equal(t, 1, n)
	published, n := b.metric("committed_to_published_seconds", "")
	require.Equal(t, 1, n)
	require.InDelta(t, 0.001, published, 1e-9)
	require.Contains(t, b.log.String(), "a message became a dead letter")
}

// Nothing is published before the store has answered.
func TestNothingIsPublishedBeforeTheCommit(t *testing.T) {
	b := setup(t)
	b.store.appending = func() error {
		results, events := b.told()
		require.Empty(t, results)
		require.Empty(t, events)
		require.Nil(t, b.Cache.State(group))
		require.Zero(t, b.Position())
		return nil
	}
	b.commit(messages(t, 1, create, intruder(2)))
	results, events := b.told()
	require.Len(t, results, 2)
	require.Len(t, events, 1)
}

// Each append expects the watermark of the one before it, and only the first begins an epoch.
func TestAppendsFollowEachOther(t *testing.T) {
	b := setup(t)
	b.commit(messages(t, 1, create))
	b.commit(messages(t, 2, text(2, "x")))
	require.True(t, b.store.appends[0].GetBeginEpoch())
	require.False(t, b.store.appends[1].GetBeginEpoch())
	require.True(t, proto.Equal(b.host.marks[0], b.store.appends[1].GetExpected()))
	require.EqualValues(t, 1, b.store.appends[1].GetExpected().GetEpoch())
	require.EqualValues(t, 1, b.host.marks[1].GetEpoch())
	require.Equal(t, 2, b.host.calms)
}

// The recorder shows events that could not be published to members.
func TestUnpublishedEvents(t *testing.T) {
	b := setup(t)
	b.conn.FailWith(errAway)
	b.commit(messages(t, 1, create))
	var explained deliveryv1.ExplainResponse
	b.Recorder.Explain(group, 1, &explained)
	require.NotNil(t, explained.GetCommit())
	require.Zero(t, explained.GetCommit().GetPublishedNs())
}

// The store reports a command that was committed before. Its sender gets the first outcome, and the other commands are
// appended.
func TestDuplicates(t *testing.T) {
	first := setup(t)
	first.commit(messages(t, 1, create, text(2, "hello")))
	b := first.again()
	b.commit(messages(t, 3, text(3, "new"), text(2, "hello")))
	require.Len(t, b.store.appends, 2)
	require.Len(t, b.store.appends[0].GetEvents(), 2)
	require.Len(t, b.store.appends[1].GetEvents(), 1)
	results, events := b.told()
	require.Equal(t, []uint64{3, 2}, seqsOf(results))
	require.True(t, results[1].GetOutcome().GetRepeated())
	require.Len(t, events, 1)
	require.Empty(t, b.store.commands)
	require.Len(t, b.host.marks, 1, "an answer that only names duplicates moves nothing")
	require.Zero(t, b.host.waits, "it is no failure")
	b.store.Verify(t)

	b.commit(messages(t, 5, text(2, "another body")))
	results, events = b.told()
	require.Equal(t, []conversationv1.ErrorCode{conflict}, codesOf(results))
	require.Empty(t, events)
}

// A command that would be refused is first looked up in the store. An earlier commit takes precedence over the refusal.
func TestRefusedCommandsAreLookedUp(t *testing.T) {
	first := setup(t)
	first.commit(messages(t, 1, create))
	b := first.again()
	b.commit(messages(t, 2, create, intruder(2)))
	results, _ := b.told()
	require.Equal(t, []uint64{1, 0}, seqsOf(results))
	require.Equal(t, []conversationv1.ErrorCode{none, notFound}, codesOf(results))
	require.Equal(t, []int{2}, b.store.commands, "each is looked up once")
	require.Len(t, b.store.appends, 1)
	require.Empty(t, b.store.appends[0].GetEvents())
	b.commit(messages(t, 4, text(3, "x")))
	require.Len(t, b.store.commands, 1, "one that is carried out is not looked up")
}

// An append that erases content has a longer time limit than other appends.
func TestTimeoutOfAnErasure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		b.commit(messages(t, 1, create, text(2, "x")))
		erase := deliverytest.Erase(&conversationv1.Erase{Sender: "ann"})
		b.commit(messages(t, 3, deliverytest.Command(string(group), string(conversation.ServerUser), 3, erase)))
		require.Equal(t, []time.Duration{timeout, 24 * timeout}, b.store.deadlines)
		require.Empty(t, b.store.Logs[string(group)][1].GetBody())
	})
}

// The measured commit delay is never negative, although the broker's clock may be ahead.
func TestCommitTimes(t *testing.T) {
	b := setup(t)
	batch := messages(t, 1, create, text(2, "x"))
	batch[0].TimeNs = b.clock.Add(-3 * time.Second).UnixNano()
	batch[1].TimeNs = b.clock.Add(time.Hour).UnixNano()
	b.commit(batch)
	sum, n := b.metric("accepted_to_committed_seconds", "")
	require.Equal(t, 2, n)
	require.InDelta(t, 3, sum, 0.1)
}

// Results are published in the order of the batch, to gateways that wait for them.
func TestAnswersGoToTheInbox(t *testing.T) {
	b := setup(t)
	elsewhere := text(2, "x")
	elsewhere.Inbox = "elsewhere"
	b.commit(messages(t, 1, create, elsewhere))
	var inboxes []string
	for _, msg := range b.conn.Take() {
		var r brokerv1.Results
		if msg.Subject == "result."+inbox || msg.Subject == "result.elsewhere" {
			require.NoError(t, r.UnmarshalVT(msg.Data))
			require.Len(t, r.GetResults(), 1)
			inboxes = append(inboxes, msg.Subject)
		}
	}
	require.Len(t, inboxes, 2)
}
