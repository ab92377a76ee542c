package client_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/client"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/errcode"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

func enqueue(t *testing.T, c *client.Client, id, what string) *client.Ticket {
	t.Helper()
	ticket, err := c.Enqueue(id, text(what))
	require.NoError(t, err)
	return ticket
}

func said(f *clientv1.ClientFrame) string { return f.GetSubmit().GetBody().GetMessage().GetText() }

func TestOneCommandOfAConversationIsOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		c, _ := start(t, g)
		// These commands are submitted before there is a connection.
		a1, a2 := enqueue(t, c, "a", "a1"), enqueue(t, c, "a", "a2")
		l, _ := g.accept(t, connected())
		f1 := l.recv(t)
		require.Equal(t, "a1", said(f1))
		require.Equal(t, a1.CommandID, f1.GetSubmit().GetCommandId())
		require.True(t, conversation.ValidCommandID(a1.CommandID))
		l.silent(t)
		// A command of another conversation does not wait.
		b1 := enqueue(t, c, "b", "b1")
		fb := l.recv(t)
		require.Equal(t, "b1", said(fb))
		l.send(commit(fb, 9))
		outcome, err := b1.Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, uint64(9), outcome.GetSeq())
		l.silent(t)
		l.send(commit(f1, 1))
		f2 := l.recv(t)
		require.Equal(t, "a2", said(f2))
		l.send(commit(f2, 2))
		outcome, err = a2.Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, uint64(2), outcome.GetSeq())
	})
}

func TestTheOrderSurvivesLostConnectionsAndTemporaryErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		c, _ := start(t, g)
		l, _ := g.accept(t, connected())
		tickets := []*client.Ticket{enqueue(t, c, "a", "1"), enqueue(t, c, "a", "2"), enqueue(t, c, "a", "3")}
		first := l.recv(t)
		lost := time.Now()
		l.cut()

		l, _ = g.accept(t, connected())
		again := l.recv(t)
		require.Equal(t, 200*time.Millisecond, time.Since(lost), "it does not wait for its own time-out")
		require.Equal(t, first.GetSubmit().GetCommandId(), again.GetSubmit().GetCommandId())
		refused := time.Now()
		l.send(refuse(again.GetId(), conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE))
		again = l.recv(t)
		require.Equal(t, "1", said(again))
		// This is the second try of the command: its wait has the maximum, twice the minimum.
		require.Equal(t, 400*time.Millisecond, time.Since(refused))

		// This temporary refusal comes from the conversation, not from the gateway, and states a time to wait.
		refused = time.Now()
		l.send(&clientv1.ServerFrame{Id: again.GetId(), Message: &clientv1.ServerFrame_Outcome{Outcome: &conversationv1.Outcome{
			Error: &conversationv1.Error{Code: conversationv1.ErrorCode_ERROR_CODE_RATE_LIMITED, RetryAfterMs: 9000},
		}}})
		again = l.recv(t)
		require.Equal(t, "1", said(again))
		require.Equal(t, 9*time.Second, time.Since(refused))
		l.send(commit(again, 1))

		// The connection is lost during the wait after a temporary error: the wait continues.
		second := l.recv(t)
		require.Equal(t, "2", said(second))
		refused = time.Now()
		l.send(&clientv1.ServerFrame{Id: second.GetId(), Message: &clientv1.ServerFrame_Error{Error: &conversationv1.Error{
			Code: conversationv1.ErrorCode_ERROR_CODE_RATE_LIMITED, RetryAfterMs: 5000,
		}}})
		synctest.Wait()
		l.cut()
		l, _ = g.accept(t, connected())
		second = l.recv(t)
		require.Equal(t, "2", said(second))
		require.Equal(t, 5*time.Second, time.Since(refused))
		l.send(commit(second, 2))
		third := l.recv(t)
		require.Equal(t, "3", said(third))
		l.send(commit(third, 3))
		for i, ticket := range tickets {
			outcome, err := ticket.Wait(t.Context())
			require.NoError(t, err)
			require.Equal(t, uint64(i+1), outcome.GetSeq())
		}
		require.Equal(t, uint64(4), c.Stats().Retries)
	})
}

func TestACommandWithoutAnAnswerIsSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		c, _ := start(t, g)
		l, _ := g.accept(t, connected())
		ticket := enqueue(t, c, "a", "1")
		first := l.recv(t)
		sent := time.Now()
		second := l.recv(t)
		require.Equal(t, 10*time.Second, time.Since(sent))
		require.NotEqual(t, first.GetId(), second.GetId())
		require.Equal(t, ticket.CommandID, second.GetSubmit().GetCommandId())
		// The late answer to the first try is ignored. Only the first answer to the second try counts.
		l.send(commit(first, 5), commit(second, 5), commit(second, 6))
		outcome, err := ticket.Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, uint64(5), outcome.GetSeq())
		require.Equal(t, uint64(1), c.Stats().Timeouts)
		time.Sleep(time.Minute)
		l.silent(t)
	})
}

func TestAPermanentRefusalIsTheOutcomeAndTheNextCommandGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		c, _ := start(t, g)
		l, _ := g.accept(t, connected())
		a, b := enqueue(t, c, "a", "1"), enqueue(t, c, "a", "2")
		l.send(&clientv1.ServerFrame{Id: l.recv(t).GetId(), Message: &clientv1.ServerFrame_Outcome{Outcome: &conversationv1.Outcome{
			Error: &conversationv1.Error{Code: conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN, Message: "not you", Field: "body"},
		}}})
		_, err := a.Wait(t.Context())
		var refusal *client.RefusedError
		require.ErrorAs(t, err, &refusal)
		require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN, refusal.Code)
		require.Equal(t, "refused: forbidden: body not you", refusal.Error())
		l.send(commit(l.recv(t), 1))
		_, err = b.Wait(t.Context())
		require.NoError(t, err)
	})
}

func TestTheOutboxIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		c, _ := start(t, g, func(cfg *client.Config) { cfg.MaxOutbox = 2 })
		first := enqueue(t, c, "a", "1")
		enqueue(t, c, "b", "2")
		_, err := c.Enqueue("c", text("3"))
		require.ErrorIs(t, err, client.ErrOutboxFull)
		// Submitting the same command again does not add a command.
		same, err := c.EnqueueID("a", first.CommandID, text("1"))
		require.NoError(t, err)
		require.Same(t, first, same)
		_, err = c.EnqueueID("a", first.CommandID, text("other"))
		var refusal *client.RefusedError
		require.ErrorAs(t, err, &refusal)
		require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_IDEMPOTENCY_CONFLICT, refusal.Code)
		_, err = c.EnqueueID("a", "not a uuid", text("1"))
		require.Error(t, err)

		l, _ := g.accept(t, connected())
		f := l.recv(t)
		l.send(commit(f, 1))
		synctest.Wait()
		_, err = c.Enqueue("c", text("3"))
		require.NoError(t, err)
	})
}

func TestCancellingAWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		c, _ := start(t, g)
		l, _ := g.accept(t, connected())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		sent, unsent := make(chan error, 1), make(chan error, 1)
		id := uuid.Must(uuid.NewV7()).String()
		go func() { _, err := c.SubmitID(ctx, "a", id, text("sent")); sent <- err }()
		f := l.recv(t)
		go func() { _, err := c.Submit(ctx, "a", text("not sent")); unsent <- err }()

		err := <-sent
		require.ErrorIs(t, err, client.ErrOutcomeUnknown)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		err = <-unsent
		require.NotErrorIs(t, err, client.ErrOutcomeUnknown)
		require.ErrorIs(t, err, context.DeadlineExceeded)

		// A command that was sent may still be committed, so its ticket stays valid. A command that was not sent is
		// withdrawn.
		ticket, err := c.EnqueueID("a", id, text("sent"))
		require.NoError(t, err)
		l.send(commit(f, 1))
		outcome, err := ticket.Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, uint64(1), outcome.GetSeq())
		l.silent(t)
	})
}

func TestCloseEndsAllWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		c, _ := start(t, g)
		l, _ := g.accept(t, connected())
		tickets := []*client.Ticket{enqueue(t, c, "a", "1"), enqueue(t, c, "a", "2")}
		l.recv(t)
		reading := make(chan error, 1)
		go func() { _, err := c.ReadAfter(t.Context(), "a", 0, 0); reading <- err }()
		l.recv(t)
		require.NoError(t, c.Close())
		for _, ticket := range tickets {
			_, err := ticket.Wait(t.Context())
			require.ErrorIs(t, err, client.ErrClosed)
		}
		require.ErrorIs(t, <-reading, client.ErrClosed)
		_, err := c.ReadAfter(t.Context(), "a", 0, 0)
		require.ErrorIs(t, err, client.ErrClosed)
	})
}

func TestAcceptedIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		accepted := make(chan *client.Ticket, 1)
		c, _ := start(t, g, func(cfg *client.Config) {
			cfg.Accepted = true
			cfg.OnAccepted = func(ticket *client.Ticket) { accepted <- ticket }
		})
		l, connect := g.accept(t, connected())
		require.True(t, connect.GetAccepted())
		ticket := enqueue(t, c, "a", "1")
		f := l.recv(t)
		l.send(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Accepted{Accepted: &clientv1.Accepted{RequestId: f.GetId()}}})
		require.Same(t, ticket, <-accepted)
	})
}

func TestARequestThatIsTooLargeIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		c, _ := start(t, g)
		l, _ := g.accept(t, &clientv1.Connected{MaxFrameBytes: 1000})
		large, small := enqueue(t, c, "a", strings.Repeat("x", 1000)), enqueue(t, c, "a", "small")
		_, err := large.Wait(t.Context())
		require.ErrorIs(t, err, client.ErrTooLarge)
		l.send(commit(l.recv(t), 1))
		_, err = small.Wait(t.Context())
		require.NoError(t, err)
	})
}

func TestManyCommandsGoInMessagesThatTheGatewayTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		c, _ := start(t, g)
		for range 300 {
			enqueue(t, c, uuid.NewString(), "hello")
		}
		l, _ := g.accept(t, &clientv1.Connected{MaxFrameBytes: 2000})
		for range 300 {
			// The decoder refuses a message with more than 64 frames.
			l.recv(t)
			require.LessOrEqual(t, len(l.pending), 63)
		}
	})
}

func TestCreating(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		c, _ := start(t, g)
		l, _ := g.accept(t, connected())
		type created struct {
			id  string
			err error
		}
		done := make(chan created, 1)
		go func() {
			id, err := c.CreateGroup(t.Context(), "team", "bob")
			done <- created{id, err}
		}()
		f := l.recv(t)
		require.Empty(t, f.GetSubmit().GetConversationId())
		require.Equal(t, []string{"bob"}, f.GetSubmit().GetBody().GetCreate().GetMembers())
		l.send(&clientv1.ServerFrame{Id: f.GetId(), Message: &clientv1.ServerFrame_Outcome{Outcome: &conversationv1.Outcome{ConversationId: "new", Seq: 1}}})
		require.Equal(t, created{"new", nil}, <-done)
		go func() {
			id, err := c.OpenDirect(t.Context(), "bob")
			done <- created{id, err}
		}()
		l.send(refuse(l.recv(t).GetId(), conversationv1.ErrorCode_ERROR_CODE_ALREADY_EXISTS))
		require.Equal(t, created{string(conversation.DirectID("alice", "bob")), nil}, <-done)
	})
}

func TestACallbackMayWaitForAnOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, h := newGateway(), newHistory(3)
		var c *client.Client
		answered := make(chan error, 3)
		c, _ = start(t, g, func(cfg *client.Config) {
			cfg.Start = clientv1.Start_START_FIRST
			cfg.OnEvent = func(ctx context.Context, event client.Event) {
				_, err := c.Send(ctx, h.id, "echo", client.ReplyTo(event.GetSeq()))
				answered <- err
			}
		})
		l, _ := g.accept(t, connected(h.info()))
		l.send(h.push(1), h.push(2), h.push(3))
		for seq := range uint64(3) {
			f := l.recv(t)
			require.Equal(t, seq+1, f.GetSubmit().GetBody().GetMessage().GetReplyTo())
			if seq == 1 {
				// The same holds if the connection is lost meanwhile.
				l.close(errcode.CloseSlow)
				l, _ = g.accept(t, connected(h.info()))
				f = l.recv(t)
			}
			h.grow(1)
			l.send(commit(f, seq+4))
			require.NoError(t, <-answered)
		}
	})
}
