package client_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/client"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// refuseForGood returns an outcome that refuses a command; refuse returns an error of the gateway itself.
func refuseForGood(f *clientv1.ClientFrame, code conversationv1.ErrorCode) *clientv1.ServerFrame {
	return &clientv1.ServerFrame{Id: f.GetId(), Message: &clientv1.ServerFrame_Outcome{Outcome: &conversationv1.Outcome{
		ConversationId: f.GetSubmit().GetConversationId(), CommandId: f.GetSubmit().GetCommandId(), Error: &conversationv1.Error{Code: code},
	}}}
}

func give(t *testing.T, c *client.Client, id string) *client.Ticket {
	t.Helper()
	ticket, err := c.EnqueueID("a", id, text("hello"))
	require.NoError(t, err)
	return ticket
}

func TestARepeatedCommandSaysHowOftenItWasRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		c, _ := start(t, g)
		l, _ := g.accept(t, connected())
		id := uuid.Must(uuid.NewV7()).String()
		for attempt := range uint32(3) {
			ticket := give(t, c, id)
			f := l.recv(t)
			require.Equal(t, attempt, f.GetSubmit().GetAttempt())
			// A lost connection and an unknown outcome do not count as refusals.
			l.cut()
			l, _ = g.accept(t, connected())
			f = l.recv(t)
			require.Equal(t, attempt, f.GetSubmit().GetAttempt())
			l.send(refuseForGood(f, conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE))
			f = l.recv(t)
			require.Equal(t, attempt, f.GetSubmit().GetAttempt())
			l.send(refuseForGood(f, conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND))
			_, err := ticket.Wait(t.Context())
			var refusal *client.RefusedError
			require.ErrorAs(t, err, &refusal)
		}
		// The attempt of a command id is 0 again after a commit, and when servers no longer remember the refusal.
		ticket := give(t, c, id)
		l.send(commit(l.recv(t), 1))
		_, err := ticket.Wait(t.Context())
		require.NoError(t, err)
		give(t, c, id)
		f := l.recv(t)
		require.Zero(t, f.GetSubmit().GetAttempt())
		l.send(refuseForGood(f, conversationv1.ErrorCode_ERROR_CODE_CONFLICT))
		synctest.Wait()
		time.Sleep(10 * time.Minute)
		give(t, c, id)
		require.Zero(t, l.recv(t).GetSubmit().GetAttempt())
	})
}

func TestATemporaryRefusalOfTheConversationRaisesTheAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		c, _ := start(t, g)
		l, _ := g.accept(t, connected())
		enqueue(t, c, "a", "hello")
		l.send(refuseForGood(l.recv(t), conversationv1.ErrorCode_ERROR_CODE_RATE_LIMITED))
		f := l.recv(t)
		require.Equal(t, uint32(1), f.GetSubmit().GetAttempt())
		// The gateway's own limit does not raise the attempt.
		l.send(refuse(f.GetId(), conversationv1.ErrorCode_ERROR_CODE_RATE_LIMITED))
		require.Equal(t, uint32(1), l.recv(t).GetSubmit().GetAttempt())
	})
}

func TestRememberedRefusalsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		c, _ := start(t, g)
		l, _ := g.accept(t, connected())
		first, second := uuid.Must(uuid.NewV7()).String(), uuid.Must(uuid.NewV7()).String()
		refused := func(id string, attempt uint32) {
			ticket := give(t, c, id)
			f := l.recv(t)
			require.Equal(t, attempt, f.GetSubmit().GetAttempt())
			l.send(refuseForGood(f, conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND))
			<-ticket.Done()
		}
		refused(first, 0)
		refused(second, 0)
		refused(first, 1) // the record is renewed
		for range 999 {
			refused(uuid.Must(uuid.NewV7()).String(), 0)
		}
		refused(first, 2)
		refused(second, 0)
	})
}

// An older gateway does not know the kind of a command that a newer gateway accepted.
func TestAGatewayThatDoesNotTakeACommandDoesNotDecideAboutEarlierCopies(t *testing.T) {
	for name, lose := range map[string]func(l *link, f *clientv1.ClientFrame){
		"the connection is lost": func(l *link, _ *clientv1.ClientFrame) { l.cut() },
		"there is no answer":     func(*link, *clientv1.ClientFrame) {},
		"the outcome is unknown": func(l *link, f *clientv1.ClientFrame) {
			l.send(refuseForGood(f, conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGateway()
				c, _ := start(t, g)
				l, _ := g.accept(t, connected())
				ticket := enqueue(t, c, "a", "hello")
				lose(l, l.recv(t))
				if name == "the connection is lost" {
					l, _ = g.accept(t, connected())
				}
				for range 3 {
					l.send(refuse(l.recv(t).GetId(), conversationv1.ErrorCode_ERROR_CODE_INVALID))
				}
				l.send(commit(l.recv(t), 7))
				outcome, err := ticket.Wait(t.Context())
				require.NoError(t, err)
				require.Equal(t, uint64(7), outcome.GetSeq())
			})
		})
	}
}

func TestACommandThatNoGatewayTakesAgainEndsUnconfirmed(t *testing.T) {
	for _, how := range []string{"invalid", "too large"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGateway()
				c, _ := start(t, g)
				l, _ := g.accept(t, connected())
				id := uuid.Must(uuid.NewV7()).String()
				ticket, next := give(t, c, id), enqueue(t, c, "a", "")
				l.recv(t)
				l.cut()
				began := time.Now()
				if how == "too large" {
					_, _ = g.accept(t, &clientv1.Connected{MaxFrameBytes: 40})
				} else {
					l, _ = g.accept(t, connected())
				}
				refusals := 0
				for how == "invalid" {
					f := l.recv(t)
					if f.GetSubmit().GetCommandId() != id {
						l.send(commit(f, 1))
						break
					}
					refusals++
					l.send(refuse(f.GetId(), conversationv1.ErrorCode_ERROR_CODE_INVALID))
				}
				_, err := ticket.Wait(t.Context())
				require.ErrorIs(t, err, client.ErrOutcomeUnknown)
				var unconfirmed *client.UnconfirmedError
				require.ErrorAs(t, err, &unconfirmed)
				var refusal *client.RefusedError
				require.NotErrorAs(t, err, &refusal, "a program must not take it for an outcome")
				require.InDelta(t, 5*time.Minute, time.Since(began), float64(30*time.Second))
				if how == "too large" {
					require.ErrorIs(t, unconfirmed.Cause, client.ErrTooLarge)
					return
				}
				require.Less(t, refusals, 30, "it backs off")
				<-next.Done()

				// When the command is submitted again, the client still knows that it was sent.
				ticket = give(t, c, id)
				l.send(refuse(l.recv(t).GetId(), conversationv1.ErrorCode_ERROR_CODE_INVALID))
				l.send(commit(l.recv(t), 7))
				_, err = ticket.Wait(t.Context())
				require.NoError(t, err)
			})
		})
	}
}

func TestAGatewaysRefusalOfAFirstCopyIsFinal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		c, _ := start(t, g)
		l, _ := g.accept(t, connected())
		ticket := enqueue(t, c, "a", "hello")
		// A command refused by the gateway's limits does not count as sent.
		l.send(refuse(l.recv(t).GetId(), conversationv1.ErrorCode_ERROR_CODE_RATE_LIMITED))
		l.send(refuse(l.recv(t).GetId(), conversationv1.ErrorCode_ERROR_CODE_INVALID))
		_, err := ticket.Wait(t.Context())
		var refusal *client.RefusedError
		require.ErrorAs(t, err, &refusal, fmt.Sprint(errors.Unwrap(err)))
		// A copy that the conversation refused does not count as unconfirmed either.
		ticket = enqueue(t, c, "a", "hello")
		l.recv(t)
		l.cut()
		l, _ = g.accept(t, connected())
		l.send(refuseForGood(l.recv(t), conversationv1.ErrorCode_ERROR_CODE_RATE_LIMITED))
		l.send(refuse(l.recv(t).GetId(), conversationv1.ErrorCode_ERROR_CODE_INVALID))
		_, err = ticket.Wait(t.Context())
		require.ErrorAs(t, err, &refusal)
	})
}

// Only the second copy was not sent. The first copy may be committed.
func TestCancellingACommandWithAnUnconfirmedCopy(t *testing.T) {
	for _, waits := range []bool{false, true} {
		t.Run(fmt.Sprintf("behind another %v", waits), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGateway()
				c, _ := start(t, g)
				l, _ := g.accept(t, connected())
				id := uuid.Must(uuid.NewV7()).String()
				ticket := give(t, c, id)
				l.recv(t)
				l.cut()
				l, _ = g.accept(t, connected())
				for {
					l.send(refuse(l.recv(t).GetId(), conversationv1.ErrorCode_ERROR_CODE_INVALID))
					synctest.Wait()
					select {
					case <-ticket.Done():
					default:
						continue
					}
					break
				}
				if waits {
					enqueue(t, c, "a", "before")
					l.recv(t)
				} else {
					g.setDown(errors.New("no route"))
					l.cut()
					synctest.Wait()
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
				defer cancel()
				_, err := c.SubmitID(ctx, "a", id, text("hello"))
				require.ErrorIs(t, err, client.ErrOutcomeUnknown)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				// As the error states, the command stays in the outbox.
				again := give(t, c, id)
				require.NotSame(t, ticket, again)
				select {
				case <-again.Done():
					t.Error("it was withdrawn")
				default:
				}
			})
		})
	}
}
