package client

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/client/internal/request"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/protocol"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// outboxFixture is an outbox whose requests are answered by the test instead of being sent.
type outboxFixture struct {
	*outbox

	accepted []string
}

func newOutboxFixture(limit int) *outboxFixture {
	f := &outboxFixture{}
	requests := request.NewQueue(request.Config{
		Codec: frame.Proto, Timeout: time.Hour, Backoff: func(int) time.Duration { return time.Second }, Refused: refusalOf,
		Check: func(*clientv1.ClientFrame) error { return nil }, Wake: func() {},
	})
	requests.Connect(request.Limits{}, 1)
	f.outbox = newOutbox(limit, requests, nil, func(ticket *Ticket) { f.accepted = append(f.accepted, ticket.CommandID) })
	return f
}

func textBody(text string) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: text}}}
}

// give puts a message into the outbox; its text is its command id.
func (f *outboxFixture) give(t *testing.T, conversationID, commandID string) *Ticket {
	t.Helper()
	ticket, err := f.enqueue(t.Context(), newTicket(conversationID, commandID, textBody(commandID)))
	require.NoError(t, err)
	return ticket
}

// sent returns the next frames.
func (f *outboxFixture) sent(t *testing.T) (frames []*clientv1.ClientFrame) {
	t.Helper()
	if message := f.requests.Append(nil, protocol.MaxFrames); len(message) > 0 {
		require.NoError(t, frame.DecodeClient(frame.Proto, message, func(f *clientv1.ClientFrame) error {
			frames = append(frames, f)
			return nil
		}))
	}
	return frames
}

// sentIDs returns the command ids of the next frames.
func (f *outboxFixture) sentIDs(t *testing.T) (ids []string) {
	t.Helper()
	for _, sent := range f.sent(t) {
		ids = append(ids, sent.GetSubmit().GetCommandId())
	}
	return ids
}

// commit answers a command that was sent.
func (f *outboxFixture) commit(ticket *Ticket, conversationID string, seq uint64) {
	f.requests.Answer(&clientv1.ServerFrame{Id: ticket.request.Frame.GetId(), Message: &clientv1.ServerFrame_Outcome{
		Outcome: &conversationv1.Outcome{ConversationId: conversationID, Seq: seq},
	}})
}

func (f *outboxFixture) refuse(ticket *Ticket, code conversationv1.ErrorCode) {
	f.requests.Answer(&clientv1.ServerFrame{Id: ticket.request.Frame.GetId(), Message: &clientv1.ServerFrame_Outcome{
		Outcome: &conversationv1.Outcome{Error: &conversationv1.Error{Code: code}},
	}})
}

// outcome returns the error of a ticket as text, or its seq.
func outcome(t *Ticket) string {
	select {
	case <-t.Done():
		if t.err != nil {
			return t.err.Error()
		}
		return strconv.FormatUint(t.outcome.GetSeq(), 10)
	default:
		return "pending"
	}
}

func TestALaneSendsOneCommandAfterTheOther(t *testing.T) {
	f := newOutboxFixture(10)
	first, second := f.give(t, "c", "1"), f.give(t, "c", "2")
	other, create, create2 := f.give(t, "d", "3"), f.give(t, "", "4"), f.give(t, "", "5")
	require.ElementsMatch(t, []string{"1", "3", "4", "5"}, f.sentIDs(t), "one of each conversation, and every create")
	f.requests.Accepted(first.request.Frame.GetId())
	require.Equal(t, []string{"1"}, f.accepted)
	f.commit(other, "d", 7)
	require.Empty(t, f.sentIDs(t))
	f.commit(first, "c", 5)
	require.Equal(t, []string{"2"}, f.sentIDs(t))
	f.refuse(second, conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN)
	f.commit(create, "e", 1)
	f.commit(create2, "f", 1)
	require.Equal(t, "5", outcome(first))
	require.Contains(t, outcome(second), "forbidden")
	require.Zero(t, f.count)
	require.Empty(t, f.queues)
}

func TestTheSameCommandTwiceHasOneTicket(t *testing.T) {
	f := newOutboxFixture(10)
	first := f.give(t, "c", "1")
	require.Same(t, first, f.give(t, "c", "1"))
	require.Equal(t, 1, f.count)
	require.False(t, f.withdraw(first), "another caller waits for it")
	_, err := f.enqueue(t.Context(), newTicket("c", "1", textBody("other")))
	refusal, ok := errors.AsType[*RefusedError](err)
	require.True(t, ok)
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_IDEMPOTENCY_CONFLICT, refusal.Code)
}

func TestAFullOutboxTakesNothing(t *testing.T) {
	f := newOutboxFixture(2)
	first := f.give(t, "c", "1")
	f.give(t, "c", "2")
	_, err := f.enqueue(t.Context(), newTicket("d", "3", textBody("3")))
	require.ErrorIs(t, err, ErrOutboxFull)
	require.Len(t, f.sentIDs(t), 1)
	f.commit(first, "c", 1)
	f.give(t, "d", "3")
}

func TestOnlyAnUnsentCommandIsWithdrawn(t *testing.T) {
	f := newOutboxFixture(10)
	first, second, third := f.give(t, "c", "1"), f.give(t, "c", "2"), f.give(t, "c", "3")
	require.True(t, f.withdraw(first), "it was not sent yet")
	require.False(t, f.withdraw(first), "it has ended")
	require.True(t, f.withdraw(third), "it was waiting")
	require.Equal(t, []string{"2"}, f.sentIDs(t))
	require.False(t, f.withdraw(second), "a copy was sent")
	require.ErrorIs(t, first.err, context.Canceled)
	require.ErrorIs(t, third.err, context.Canceled)
	require.Equal(t, 1, f.count)
}

func TestClosingEndsEveryCommand(t *testing.T) {
	f := newOutboxFixture(10)
	tickets := []*Ticket{f.give(t, "c", "1"), f.give(t, "c", "2"), f.give(t, "d", "3")}
	require.Len(t, f.sentIDs(t), 2)
	f.close(ErrClosed)
	for _, ticket := range tickets {
		require.ErrorIs(t, ticket.err, ErrClosed)
	}
	require.Zero(t, f.count)
	require.Zero(t, f.requests.Pending())
	_, err := f.enqueue(t.Context(), newTicket("c", "4", textBody("4")))
	require.ErrorIs(t, err, ErrClosed)
}

func TestARefusedCommandThatIsGivenAgainIsANewAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newOutboxFixture(10)
		attempts := func() []uint32 {
			var numbers []uint32
			for range 2 {
				ticket := f.give(t, "c", "1")
				numbers = append(numbers, f.sent(t)[0].GetSubmit().GetAttempt())
				f.refuse(ticket, conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN)
			}
			return numbers
		}
		require.Equal(t, []uint32{0, 1}, attempts())
		time.Sleep(refusedFor - time.Nanosecond)
		require.Equal(t, []uint32{2, 3}, attempts())
		time.Sleep(refusedFor)
		require.Equal(t, []uint32{0, 1}, attempts(), "the server remembers refusals for no longer")
		ticket := f.give(t, "c", "1")
		f.sent(t)
		f.commit(ticket, "c", 9)
		require.Zero(t, f.refusals.find(ticket.key(), time.Now()))
	})
}

func TestWhatWasUndoneIsSentBeforeWhatWaits(t *testing.T) {
	f := newOutboxFixture(3)
	for seq, id := range []string{"1", "2", "3"} {
		ticket := f.give(t, "c", id)
		f.sent(t)
		f.commit(ticket, "c", uint64(seq+1))
	}
	elsewhere := f.give(t, "d", "4")
	f.sent(t)
	f.commit(elsewhere, "d", 9)
	underway, waits := f.give(t, "c", "5"), f.give(t, "c", "6")
	require.Equal(t, []string{"5"}, f.sentIDs(t))

	newest, again := f.resubmit("c", 1, "alice")
	require.EqualValues(t, 3, newest)
	require.Len(t, again, 2, "more than the limit allows: they were taken before")
	require.False(t, f.withdraw(again[1]), "the program may hold its ticket")
	require.Equal(t, 4, f.count)
	var order []string
	for seq, ticket := range []*Ticket{underway, again[0], again[1], waits} {
		f.commit(ticket, "c", uint64(seq+10))
		order = append(order, f.sentIDs(t)...)
	}
	require.Equal(t, []string{"2", "3", "6"}, order)
	newest, again = f.resubmit("c", 100, "alice")
	require.Zero(t, newest)
	require.Empty(t, again)
}

func TestAnUndoneCreateKeepsItsPlace(t *testing.T) {
	f := newOutboxFixture(10)
	create, err := f.enqueue(t.Context(), newTicket("", "1", &conversationv1.Body{Action: &conversationv1.Body_Create{Create: &conversationv1.Create{}}}))
	require.NoError(t, err)
	f.sent(t)
	f.commit(create, "c", 1)
	require.True(t, f.committed.Created("c"))
	message := f.give(t, "c", "2")
	f.sent(t)
	f.commit(message, "c", 2)

	newest, again := f.resubmit("c", 0, "alice")
	require.EqualValues(t, 2, newest)
	require.Empty(t, again[0].ConversationID)
	submit := f.sent(t)[0].GetSubmit()
	require.Equal(t, "1", submit.GetCommandId())
	require.Empty(t, submit.GetConversationId())
	f.commit(again[0], "c", 1)
	require.Equal(t, []string{"2"}, f.sentIDs(t))
}

func TestACommandThatRefersToWhatWasUndone(t *testing.T) {
	f := newOutboxFixture(10)
	bodies := []*conversationv1.Body{
		textBody("target"),
		{Action: &conversationv1.Body_React{React: &conversationv1.React{Target: 1, Emoji: "+"}}},
		{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: "answer", ReplyTo: 1}}},
	}
	for i, body := range bodies {
		ticket, err := f.enqueue(t.Context(), newTicket("c", strconv.Itoa(i), body))
		require.NoError(t, err)
		f.sent(t)
		f.commit(ticket, "c", uint64(i+1))
	}
	_, again := f.resubmit("c", 0, "alice")
	require.Equal(t, "pending", outcome(again[0]))
	require.ErrorIs(t, again[1].err, ErrUndone)
	f.sent(t)
	f.commit(again[0], "c", 1)
	answer := f.sent(t)[0].GetSubmit().GetBody().GetMessage()
	require.Equal(t, "answer", answer.GetText())
	require.Zero(t, answer.GetReplyTo(), "an answer to nothing is a message")
	require.EqualValues(t, 1, bodies[2].GetMessage().GetReplyTo(), "the body of the program is not changed")
	require.Same(t, bodies[2], retarget("alice", bodies[2], 1), "what it refers to is still there")
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	var committed committedCommands
	for seq := range uint64(maxCommitted + 10) {
		committed.add(committedCommand{conversationID: "c", seq: seq + 1, body: textBody("x")})
	}
	require.Len(t, committed.commands, maxCommitted)
	require.EqualValues(t, 11, committed.commands[0].seq)
	large := textBody(strings.Repeat("x", maxCommittedBytes/2))
	for range 3 {
		committed.add(committedCommand{conversationID: "d", seq: 1, body: large})
	}
	require.Len(t, committed.commands, 1)
	require.LessOrEqual(t, committed.bytes, maxCommittedBytes)
	require.Zero(t, committed.Newest("c"))
	require.False(t, committed.Created("d"), "a message creates nothing")
	require.False(t, committed.Lost("d"))
	committed.MarkLost("d")
	require.True(t, committed.Lost("d"))

	var refused refusals
	now := time.Now()
	for i := range maxRefused + 10 {
		refused.keep(commandKey{"c", strconv.Itoa(i)}, attemptRecord{attempt: 1, at: now})
	}
	require.Len(t, refused.byID, maxRefused)
	require.Len(t, refused.order, maxRefused)
	require.Zero(t, refused.find(commandKey{"c", "9"}, now))
	require.NotZero(t, refused.find(commandKey{"c", "10"}, now))
}
