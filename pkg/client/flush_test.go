package client_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/client"
	"github.com/runnelhq/runnel/pkg/errcode"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

func TestFlushWaitsForEveryOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		c, _ := start(t, g)
		require.NoError(t, c.Flush(t.Context()), "nothing is in the outbox")
		a1, a2, b1 := enqueue(t, c, "a", "a1"), enqueue(t, c, "a", "a2"), enqueue(t, c, "b", "b1")
		flushed := make(chan error, 1)
		go func() { flushed <- c.Flush(t.Context()) }()
		synctest.Wait()
		later := enqueue(t, c, "c", "not waited for")
		l, _ := g.accept(t, connected())
		l.send(commit(l.recv(t), 1))
		synctest.Wait()
		require.Empty(t, flushed)
		for range 3 {
			f := l.recv(t)
			switch said(f) {
			case "b1":
				l.send(refuse(f.GetId(), conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN))
			case "not waited for":
			default:
				l.send(commit(f, 2))
			}
		}
		require.NoError(t, <-flushed, "a refusal is an outcome")
		for _, ticket := range []*client.Ticket{a1, a2, b1} {
			<-ticket.Done()
		}
		select {
		case <-later.Done():
			t.Error("it has no outcome")
		default:
		}
	})
}

// TestFlushNamesWhatIsPending: commands that were never sent are distinguished from commands that may have been
// committed.
func TestFlushNamesWhatIsPending(t *testing.T) {
	for name, end := range map[string]struct {
		end   func(g *gateway, l *link, c *client.Client)
		cause error
	}{
		"the context ends":           {func(*gateway, *link, *client.Client) {}, context.DeadlineExceeded},
		"the program closes":         {func(_ *gateway, _ *link, c *client.Client) { _ = c.Close() }, client.ErrClosed},
		"the gateway asks to go":     {func(_ *gateway, l *link, _ *client.Client) { l.close(errcode.CloseUnauthenticated) }, nil},
		"the connection is lost":     {func(g *gateway, l *link, _ *client.Client) { g.setDown(context.Canceled); l.cut() }, context.DeadlineExceeded},
		"it was refused in disorder": {func(_ *gateway, l *link, _ *client.Client) { l.send(refuse(99, 1)) }, context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGateway()
				c, _ := start(t, g)
				l, _ := g.accept(t, connected())
				first, second := enqueue(t, c, "a", "a1"), enqueue(t, c, "a", "a2")
				l.recv(t)
				flushed := make(chan error, 1)
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				go func() { flushed <- c.Flush(ctx) }()
				synctest.Wait()
				end.end(g, l, c)
				var pending *client.PendingError
				require.ErrorAs(t, <-flushed, &pending)
				require.Equal(t, []*client.Ticket{first}, pending.Unknown)
				require.Equal(t, []*client.Ticket{second}, pending.Unsent)
				require.ErrorContains(t, pending, "1 not sent, 1 sent with an unknown outcome")
				if end.cause != nil {
					require.ErrorIs(t, pending, end.cause)
				} else {
					var closed *client.ClosedError
					require.ErrorAs(t, pending, &closed)
				}
			})
		})
	}
}

func TestCloseLogsWhatItDrops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		var log strings.Builder
		c, _ := start(t, g, func(cfg *client.Config) {
			cfg.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
		})
		l, _ := g.accept(t, connected())
		dropped := []*client.Ticket{enqueue(t, c, "a", "a1"), enqueue(t, c, "a", "a2")}
		l.recv(t)
		require.NoError(t, c.Close())
		require.Contains(t, log.String(), "commands=2")
		for _, ticket := range dropped {
			_, err := ticket.Wait(t.Context())
			require.ErrorIs(t, err, client.ErrClosed)
		}
	})
}

// TestCommandsCommitSoonAfterALongOutage: while NATS is unavailable, a gateway keeps each try of a command for 8 s and
// then answers UNAVAILABLE. However long the outage was, the next try follows within two seconds. Therefore a command is
// committed within two seconds after the outage.
func TestCommandsCommitSoonAfterALongOutage(t *testing.T) {
	for _, outage := range []time.Duration{10 * time.Second, time.Minute, 210 * time.Second, 24 * time.Hour} {
		t.Run(outage.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGateway()
				c, _ := start(t, g) // with the maximum waits
				l, _ := g.accept(t, connected())
				ticket := enqueue(t, c, "a", "1")
				const held = 8 * time.Second
				back := time.Now().Add(outage)
				for {
					f := l.recv(t)
					if left := time.Until(back); left < held {
						time.Sleep(max(left, 0))
						l.send(commit(f, 1))
						break
					}
					time.Sleep(held)
					refused := commit(f, 0)
					refused.GetOutcome().Error = &conversationv1.Error{Code: conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE, RetryAfterMs: 1000}
					l.send(refused)
				}
				_, err := ticket.Wait(t.Context())
				require.NoError(t, err)
				require.LessOrEqual(t, time.Since(back), 2*time.Second)
			})
		})
	}
}
