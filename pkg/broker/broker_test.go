package broker_test

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/bus"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const partitions = 2

// bundle contains a NATS server with the streams, and a Submitter that uses it.
type bundle struct {
	t         testing.TB
	server    *server.Server
	nc        *nats.Conn
	js        jetstream.JetStream
	submitter *broker.Submitter
}

func setup(tb testing.TB, cfg broker.SubmitterConfig) *bundle {
	tb.Helper()
	ns, err := server.NewServer(&server.Options{DontListen: true, JetStream: true, StoreDir: tb.TempDir(), NoSigs: true})
	require.NoError(tb, err)
	ns.Start()
	require.True(tb, ns.ReadyForConnections(30*time.Second))
	b := &bundle{t: tb, server: ns}
	b.nc, err = broker.Connect(broker.Config{}, "test", slog.New(slog.DiscardHandler), prometheus.NewRegistry(), nats.InProcessServer(ns))
	require.NoError(tb, err)
	b.js, err = jetstream.New(b.nc)
	require.NoError(tb, err)
	settings := broker.Config{Partitions: partitions, Replicas: 1, MaxBytes: 1 << 30, MaxAge: time.Hour, DuplicateWindow: 2 * time.Minute}
	require.NoError(tb, broker.EnsureStreams(tb.Context(), b.js, settings))
	require.NoError(tb, broker.EnsureStreams(tb.Context(), b.js, settings), "a second time, as at every start")
	b.submitter, err = broker.NewSubmitter(b.nc, bus.OverNATS{Conn: b.nc}, partitions, "inbox", cfg, slog.New(slog.DiscardHandler))
	require.NoError(tb, err)
	tb.Cleanup(func() {
		b.submitter.Close()
		b.nc.Close()
		ns.Shutdown()
		ns.WaitForShutdown()
	})
	return b
}

// cmd returns the n-th command of a sender to bob.
func cmd(sender string, n int) *brokerv1.Command {
	return &brokerv1.Command{
		ConversationId: string(conversation.DirectID("bob", ids.User(sender))), Sender: sender, CommandId: fmt.Sprintf("0192f3c0-0000-7000-8000-%012x", n),
		Body: message(strconv.Itoa(n)), Level: 1,
	}
}

// message is an encoded body.
func message(text string) []byte {
	body, _ := conversation.EncodeBody(&conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: text}}})
	return body
}

// own acts as the owner of all partitions: it answers every command with its stream sequence.
func (b *bundle) own(tb testing.TB) (applied func() []*brokerv1.Command) {
	tb.Helper()
	commands := make(chan *brokerv1.Command, 1000)
	sub, err := b.nc.Subscribe("in.*", func(msg *nats.Msg) {
		var command brokerv1.Command
		if command.UnmarshalVT(msg.Data) == nil {
			select {
			case commands <- &command:
			default: // the benchmark does not read them
			}
			data, _ := (&brokerv1.Results{Results: []*brokerv1.Result{{Sender: command.GetSender(), Outcome: &conversationv1.Outcome{
				ConversationId: command.GetConversationId(), CommandId: command.GetCommandId(), Seq: 7,
			}}}}).MarshalVT()
			_ = b.nc.Publish(broker.ResultSubject(command.GetInbox()), data)
		}
	})
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = sub.Unsubscribe() })
	return func() (all []*brokerv1.Command) {
		for len(commands) > 0 {
			all = append(all, <-commands)
		}
		return all
	}
}

func TestCommandsOfASenderStayInOrder(t *testing.T) {
	b := setup(t, broker.SubmitterConfig{})
	applied := b.own(t)
	const n = 200
	done := make(chan *conversationv1.Outcome, n)
	accepted := make(chan struct{}, n)
	for i := range n {
		require.NoError(t, b.submitter.Submit(broker.Submission{
			Command:  cmd("ann", i),
			Accepted: func() { accepted <- struct{}{} },
			Done:     func(o *conversationv1.Outcome) { done <- o },
		}))
	}
	for range n {
		require.Equal(t, uint64(7), (<-done).GetSeq())
	}
	for i, command := range applied() {
		require.Equal(t, message(strconv.Itoa(i)), command.GetBody())
	}
	require.Zero(t, b.submitter.Pending())
}

func TestARepeatJoinsTheCommandUnderWay(t *testing.T) {
	b := setup(t, broker.SubmitterConfig{})
	accepted, done := make(chan struct{}, 3), make(chan *conversationv1.Outcome, 3)
	submission := func() broker.Submission {
		return broker.Submission{
			Command:  cmd("ann", 1),
			Accepted: func() { accepted <- struct{}{} }, Done: func(o *conversationv1.Outcome) { done <- o },
		}
	}
	require.NoError(t, b.submitter.Submit(submission()))
	<-accepted
	require.NoError(t, b.submitter.Submit(submission()))
	<-accepted
	other := submission()
	other.Command.Body = message("something else")
	require.ErrorIs(t, b.submitter.Submit(other), broker.ErrConflict)
	b.answer(cmd("ann", 1))
	require.Equal(t, uint64(9), (<-done).GetSeq())
	require.Equal(t, uint64(9), (<-done).GetSeq(), "every waiter gets the outcome")
}

func (b *bundle) answer(command *brokerv1.Command) { b.answerWith(command, 9) }

func (b *bundle) answerWith(command *brokerv1.Command, seq uint64) {
	data, err := (&brokerv1.Results{Results: []*brokerv1.Result{{
		Sender: command.GetSender(), Salt: command.GetSalt(),
		Outcome: &conversationv1.Outcome{ConversationId: command.GetConversationId(), CommandId: command.GetCommandId(), Seq: seq},
	}}}).MarshalVT()
	require.NoError(b.t, err)
	require.NoError(b.t, b.nc.Publish(broker.ResultSubject("inbox"), data))
}

// If an earlier process published a command, the command is a duplicate in the stream. This process must still get its
// answer.
func TestADuplicateIsTakenToTheOwnerAgain(t *testing.T) {
	b := setup(t, broker.SubmitterConfig{})
	first, err := broker.NewSubmitter(b.nc, bus.OverNATS{Conn: b.nc}, partitions, "gone", broker.SubmitterConfig{}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	accepted := make(chan struct{})
	require.NoError(t, first.Submit(broker.Submission{Command: cmd("ann", 1), Accepted: func() { close(accepted) }}))
	<-accepted
	first.Close()

	// The owner reads the stream, not the subject: only stored messages count.
	done := make(chan *conversationv1.Outcome, 1)
	stored := make(chan struct{})
	require.NoError(t, b.submitter.Submit(broker.Submission{
		Command: cmd("ann", 1), Accepted: func() { close(stored) }, Done: func(o *conversationv1.Outcome) { done <- o },
	}))
	<-stored
	stream, err := b.js.Stream(t.Context(), broker.StreamName(conversation.Partition(conversation.DirectID("bob", "ann"), partitions)))
	require.NoError(t, err)
	second, err := stream.GetMsg(t.Context(), 2)
	require.NoError(t, err, "the repeat is in the stream for its owner to answer")
	var command brokerv1.Command
	require.NoError(t, command.UnmarshalVT(second.Data))
	require.Equal(t, "inbox", command.GetInbox())
	b.answer(cmd("ann", 1))
	require.Equal(t, uint64(9), (<-done).GetSeq())
}

// A result is published at most once. If a client repeats the command, the command is published again, but not for each
// repeat.
func TestALostResultIsAskedForAgain(t *testing.T) {
	b := setup(t, broker.SubmitterConfig{AskAgain: time.Nanosecond})
	copies := make(chan struct{}, 10)
	sub, err := b.nc.Subscribe("in.*", func(*nats.Msg) { copies <- struct{}{} })
	require.NoError(t, err)
	t.Cleanup(func() { _ = sub.Unsubscribe() })
	accepted, done := make(chan struct{}, 10), make(chan *conversationv1.Outcome, 10)
	submission := broker.Submission{Command: cmd("ann", 1), Accepted: func() { accepted <- struct{}{} }, Done: func(o *conversationv1.Outcome) { done <- o }}
	require.NoError(t, b.submitter.Submit(submission))
	<-copies
	<-accepted // the owner's result is lost
	require.NoError(t, b.submitter.Submit(submission))
	<-copies
	<-accepted
	b.answer(cmd("ann", 1))
	require.Equal(t, uint64(9), (<-done).GetSeq())
	require.Equal(t, uint64(9), (<-done).GetSeq())
	require.Zero(t, b.submitter.Pending())

	patient := setup(t, broker.SubmitterConfig{AskAgain: time.Hour})
	require.NoError(t, patient.submitter.Submit(submission))
	<-accepted
	require.NoError(t, patient.submitter.Submit(submission))
	<-accepted
	stream, err := patient.js.Stream(t.Context(), broker.StreamName(conversation.Partition(ids.Conversation(submission.Command.GetConversationId()), partitions)))
	require.NoError(t, err)
	require.Equal(t, uint64(1), stream.CachedInfo().State.Msgs, "it joins the call in flight")
}

func TestWithoutABrokerTheOutcomeIsUnknownAndOrderIsKept(t *testing.T) {
	b := setup(t, broker.SubmitterConfig{PublishTimeout: 50 * time.Millisecond, AcceptTimeout: 300 * time.Millisecond})
	for p := range partitions {
		require.NoError(t, b.js.DeleteStream(t.Context(), broker.StreamName(ids.Partition(p))))
	}
	done := make(chan *conversationv1.Outcome, 2)
	for i := range 2 {
		require.NoError(t, b.submitter.Submit(broker.Submission{Command: cmd("ann", i), Done: func(o *conversationv1.Outcome) { done <- o }}))
	}
	for range 2 {
		outcome := <-done
		require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE, outcome.GetError().GetCode())
		require.NotZero(t, outcome.GetError().GetRetryAfterMs())
	}
	require.Zero(t, b.submitter.Pending())
}

func TestPendingCommandsAreBounded(t *testing.T) {
	b := setup(t, broker.SubmitterConfig{MaxPending: 1})
	require.NoError(t, b.submitter.Submit(broker.Submission{Command: cmd("ann", 1), Done: func(*conversationv1.Outcome) {}}))
	require.ErrorIs(t, b.submitter.Submit(broker.Submission{Command: cmd("ann", 2)}), broker.ErrBusy)
}

func TestDoEndsWithItsContext(t *testing.T) {
	b := setup(t, broker.SubmitterConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := b.submitter.Do(ctx, cmd("ann", 1), nil)
	require.ErrorIs(t, err, context.Canceled)
}

func TestStreamsForgetNothing(t *testing.T) {
	b := setup(t, broker.SubmitterConfig{})
	stream, err := b.js.Stream(t.Context(), broker.StreamName(0))
	require.NoError(t, err)
	cfg := stream.CachedInfo().Config
	require.False(t, cfg.DenyPurge, "the owner makes room for new commands; users.conf prevents others from doing so")
	require.True(t, cfg.DenyDelete)
	require.Equal(t, jetstream.DiscardNew, cfg.Discard)
	require.Equal(t, jetstream.LimitsPolicy, cfg.Retention)
	require.False(t, cfg.AllowDirect)
}

// A stream created by an early version cannot be used. The error tells the operator what to do.
func TestAStreamThatDeniesPurgingIsRefused(t *testing.T) {
	b := setup(t, broker.SubmitterConfig{})
	settings := broker.Config{Partitions: partitions + 1, Replicas: 1, MaxBytes: 1 << 20, MaxAge: time.Hour, DuplicateWindow: time.Minute}
	_, err := b.js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: broker.StreamName(partitions), Subjects: []string{broker.CommandSubject(partitions)}, DenyPurge: true,
	})
	require.NoError(t, err)
	require.ErrorIs(t, broker.EnsureStreams(t.Context(), b.js, settings), broker.ErrStreamOutdated)
}

// Existing streams get the current settings.
func TestExistingStreamsAreUpdated(t *testing.T) {
	b := setup(t, broker.SubmitterConfig{})
	settings := broker.Config{Partitions: partitions, Replicas: 1, MaxBytes: 1 << 20, MaxAge: 2 * time.Hour, DuplicateWindow: time.Minute}
	require.NoError(t, broker.EnsureStreams(t.Context(), b.js, settings))
	stream, err := b.js.Stream(t.Context(), broker.StreamName(1))
	require.NoError(t, err)
	require.Equal(t, int64(1<<20), stream.CachedInfo().Config.MaxBytes)
	require.Equal(t, 2*time.Hour, stream.CachedInfo().Config.MaxAge)
}

// BenchmarkSubmit measures a command from Submit to its outcome, with 512 in flight.
func BenchmarkSubmit(b *testing.B) {
	bundle := setup(b, broker.SubmitterConfig{})
	bundle.own(b)
	under := make(chan struct{}, 512)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		under <- struct{}{}
		require.NoError(b, bundle.submitter.Submit(broker.Submission{
			Command: cmd(fmt.Sprintf("u%d", i%1000), i), Done: func(*conversationv1.Outcome) { <-under },
		}))
	}
}

// The answer to an earlier copy of a command with another body is not used for the command in flight.
func TestTheAnswerToAnotherCopyIsNotTaken(t *testing.T) {
	b := setup(t, broker.SubmitterConfig{})
	command := cmd("ann", 1)
	command.Salt = []byte("salt of this one")
	done, accepted := make(chan *conversationv1.Outcome, 1), make(chan struct{})
	require.NoError(t, b.submitter.Submit(broker.Submission{
		Command: command, Accepted: func() { close(accepted) }, Done: func(o *conversationv1.Outcome) { done <- o },
	}))
	<-accepted
	other, mine := cmd("ann", 1), cmd("ann", 1)
	other.Salt, mine.Salt = []byte("salt of another"), command.GetSalt()
	b.answerWith(other, 5)
	b.answerWith(mine, 9)
	require.Equal(t, uint64(9), (<-done).GetSeq())
}
