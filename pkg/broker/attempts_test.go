package broker_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/conversation"
)

// asked submits the n-th command of ann in an attempt, and returns the channels for its outcome and its acceptance.
func (b *bundle) asked(n int, attempt uint32) (*brokerv1.Command, chan *conversationv1.Outcome, chan struct{}) {
	command := cmd("ann", n)
	command.Attempt, command.Salt = attempt, []byte{byte(n), byte(attempt)}
	done, accepted := make(chan *conversationv1.Outcome, 4), make(chan struct{}, 4)
	require.NoError(b.t, b.submitter.Submit(broker.Submission{
		Command: command, Accepted: func() { accepted <- struct{}{} }, Done: func(o *conversationv1.Outcome) { done <- o },
	}))
	return command, done, accepted
}

// stored reads a message of ann's partition from the stream.
func (b *bundle) stored(sequence uint64) (*brokerv1.Command, string) {
	stream, err := b.js.Stream(b.t.Context(), broker.StreamName(conversation.Partition(conversation.DirectID("bob", "ann"), partitions)))
	require.NoError(b.t, err)
	msg, err := stream.GetMsg(b.t.Context(), sequence)
	require.NoError(b.t, err)
	var command brokerv1.Command
	require.NoError(b.t, command.UnmarshalVT(msg.Data))
	return &command, msg.Header.Get("Nats-Msg-Id")
}

func requireUnknown(t *testing.T, outcome *conversationv1.Outcome) {
	t.Helper()
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE, outcome.GetError().GetCode(), "unknown is not a refusal")
}

// A client that repeats a command after a refusal begins a new call, which is another message for the broker.
func TestAHigherAttemptIsANewCall(t *testing.T) {
	b := setup(t, broker.SubmitterConfig{})
	_, first, accepted := b.asked(1, 0)
	<-accepted
	second, outcome, accepted := b.asked(1, 1)
	requireUnknown(t, <-first)
	<-accepted
	require.Equal(t, 1, b.submitter.Pending())

	old, oldID := b.stored(1)
	renewed, newID := b.stored(2)
	require.Equal(t, uint32(0), old.GetAttempt())
	require.Equal(t, uint32(1), renewed.GetAttempt())
	require.NotEqual(t, oldID, newID, "or the broker would drop it as a duplicate")

	b.answerWith(old, 5) // the answer to the superseded call
	b.answerWith(second, 9)
	require.Equal(t, uint64(9), (<-outcome).GetSeq())
	require.Empty(t, first, "a waiter gets one outcome")
	require.Zero(t, b.submitter.Pending())
}

// An older attempt joins the newer attempt: the newer attempt's outcome answers both.
func TestALowerAttemptJoinsTheNewerOne(t *testing.T) {
	b := setup(t, broker.SubmitterConfig{})
	second, outcome, accepted := b.asked(1, 1)
	<-accepted
	_, late, _ := b.asked(1, 0)
	b.answerWith(second, 9)
	require.Equal(t, uint64(9), (<-outcome).GetSeq())
	require.Equal(t, uint64(9), (<-late).GetSeq())
}

// The new call is queued behind the superseded call, and behind commands that the client sent in between.
func TestAHigherAttemptKeepsTheOrderOfSubmit(t *testing.T) {
	b := setup(t, broker.SubmitterConfig{PublishTimeout: time.Minute, AcceptTimeout: time.Minute})
	hold := b.holdPubAcks()
	_, first, _ := b.asked(1, 0)
	_, _, queued := b.asked(2, 0)
	_, _, again := b.asked(1, 1)
	requireUnknown(t, <-first)
	hold.take(1)
	require.NoError(t, b.nc.Flush())
	waiting, _, err := hold.sub.Pending()
	require.NoError(t, err)
	require.Zero(t, waiting, "one publish is in flight at most")
	hold.release()
	<-queued
	<-again
	for i, want := range []struct {
		id      string
		attempt uint32
	}{{cmd("ann", 1).GetCommandId(), 0}, {cmd("ann", 2).GetCommandId(), 0}, {cmd("ann", 1).GetCommandId(), 1}} {
		command, _ := b.stored(uint64(i + 1))
		require.Equal(t, want.id, command.GetCommandId())
		require.Equal(t, want.attempt, command.GetAttempt())
	}
}

// A superseded call whose publish is never answered does not block the call that replaced it.
func TestASupersededCallDoesNotBlockItsLane(t *testing.T) {
	b := setup(t, broker.SubmitterConfig{PublishTimeout: time.Second, AcceptTimeout: time.Minute})
	hold := b.holdPubAcks()
	_, first, _ := b.asked(1, 0)
	hold.take(1)
	_, _, accepted := b.asked(1, 1)
	requireUnknown(t, <-first)
	hold.take(2) // the old publish has timed out, and the new one is in flight
	hold.release()
	<-accepted
}

// A superseded call that was not published yet is never published.
func TestASupersededCallThatIsQueuedIsNotPublished(t *testing.T) {
	b := setup(t, broker.SubmitterConfig{PublishTimeout: time.Minute, AcceptTimeout: time.Minute})
	hold := b.holdPubAcks()
	b.asked(1, 0)
	_, second, _ := b.asked(2, 0)
	_, _, accepted := b.asked(2, 1)
	requireUnknown(t, <-second)
	hold.release()
	<-accepted
	command, _ := b.stored(2)
	require.Equal(t, uint32(1), command.GetAttempt())
}

// pubAcks withholds the broker's acknowledgements. It renames the stream's subject, so that the stream receives no
// publishes until release stores them.
type pubAcks struct {
	b      *bundle
	sub    *nats.Subscription
	config jetstream.StreamConfig
	msgs   []*nats.Msg
}

func (b *bundle) holdPubAcks() *pubAcks {
	name := broker.StreamName(conversation.Partition(conversation.DirectID("bob", "ann"), partitions))
	stream, err := b.js.Stream(b.t.Context(), name)
	require.NoError(b.t, err)
	h := &pubAcks{b: b, config: stream.CachedInfo().Config}
	h.sub, err = b.nc.SubscribeSync(h.config.Subjects[0])
	require.NoError(b.t, err)
	renamed := h.config
	renamed.Subjects = []string{"elsewhere"}
	_, err = b.js.UpdateStream(b.t.Context(), renamed)
	require.NoError(b.t, err)
	return h
}

// take waits until there were publishes of this many different calls.
func (h *pubAcks) take(calls int) {
	seen := map[string]bool{}
	for _, msg := range h.msgs {
		seen[msg.Header.Get("Nats-Msg-Id")] = true
	}
	for len(seen) < calls {
		msg, err := h.sub.NextMsg(30 * time.Second)
		require.NoError(h.b.t, err)
		seen[msg.Header.Get("Nats-Msg-Id")] = true
		h.msgs = append(h.msgs, msg)
	}
}

// release lets the broker store and acknowledge the withheld publishes, and all later ones.
func (h *pubAcks) release() {
	if len(h.msgs) == 0 {
		h.take(1)
	}
	_, err := h.b.js.UpdateStream(h.b.t.Context(), h.config)
	require.NoError(h.b.t, err)
	require.NoError(h.b.t, h.sub.Unsubscribe())
	for _, msg := range h.msgs {
		require.NoError(h.b.t, h.b.nc.PublishMsg(&nats.Msg{Subject: msg.Subject, Reply: msg.Reply, Header: msg.Header, Data: msg.Data}))
	}
}

// Two bodies with different encodings of the same content are the same command.
func TestARepeatIsComparedByWhatItAsksFor(t *testing.T) {
	b := setup(t, broker.SubmitterConfig{})
	_, first, accepted := b.asked(1, 0)
	<-accepted
	again := cmd("ann", 1)
	again.Body = append([]byte{0x12, 0x80 | byte(len(again.GetBody())-2), 0}, again.GetBody()[2:]...) // a length in two bytes instead of one
	require.NotEqual(t, cmd("ann", 1).GetBody(), again.GetBody())
	require.NoError(t, b.submitter.Submit(broker.Submission{Command: again, Done: func(*conversationv1.Outcome) {}}))
	require.Empty(t, first)
}
