package client_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/client"
	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/frame"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

func TestConfigIsChecked(t *testing.T) {
	token := func(context.Context) (string, error) { return "", nil }
	for _, cfg := range []client.Config{
		{},
		{URL: "http://gateway", DeviceID: "phone", Token: token},
		{URL: "ws://gateway", DeviceID: "my phone", Token: token},
		{URL: "ws://gateway", DeviceID: "phone"},
	} {
		_, err := client.New(cfg)
		require.Error(t, err)
	}
}

func TestConnectIntroducesTheDevice(t *testing.T) {
	for _, codec := range []frame.Codec{frame.Proto, frame.JSON} {
		synctest.Test(t, func(t *testing.T) {
			g := newGateway()
			c, v := start(t, g, func(cfg *client.Config) { cfg.Codec = codec; cfg.Start = clientv1.Start_START_DELIVERED })
			_, connect := g.accept(t, connected())
			require.Equal(t, "token", connect.GetToken())
			require.Equal(t, "phone", connect.GetDeviceId())
			require.Equal(t, clientv1.Start_START_DELIVERED, connect.GetStart())
			require.True(t, connect.GetNoReceipts())
			require.NoError(t, c.Ready(t.Context()))
			require.Equal(t, "alice", c.UserID())
			synctest.Wait()
			require.NoError(t, c.Close())
			require.NoError(t, c.Close())
			require.Equal(t, []client.State{client.Connecting, client.Connected, client.Closed}, v.states)
			require.ErrorIs(t, c.Ready(t.Context()), client.ErrClosed)
			require.Error(t, c.Start(t.Context()))
		})
	}
}

func TestACloseBeforeStart(t *testing.T) {
	g := newGateway()
	c, err := client.New(client.Config{URL: "ws://gateway", DeviceID: "phone", Dial: g.dial, Token: func(context.Context) (string, error) { return "", nil }})
	require.NoError(t, err)
	ticket, err := c.Enqueue("x", text("a"))
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.NoError(t, c.Close())
	_, err = ticket.Wait(t.Context())
	require.ErrorIs(t, err, client.ErrClosed)
	<-c.Ended()
}

func TestWaitsGrowToTheirBoundAndBeginSmallAfterAGoodConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		g.down = errors.New("refused")
		_, v := start(t, g)
		time.Sleep(time.Minute)
		synctest.Wait()
		var waits []time.Duration
		for i := range g.dialed[1:] {
			waits = append(waits, g.dialed[i+1].Sub(g.dialed[i]))
		}
		ms := time.Millisecond
		require.Equal(t, []time.Duration{200 * ms, 400 * ms, 800 * ms, 1600 * ms, 3200 * ms, 6400 * ms, 12800 * ms, 20 * time.Second}, waits)
		require.Equal(t, []client.State{client.Connecting, client.Waiting, client.Connecting, client.Waiting}, v.seen()[:4])

		g.setDown(nil)
		l, _ := g.accept(t, connected())
		time.Sleep(3 * time.Second)
		lost := time.Now()
		l.cut()
		g.accept(t, connected())
		require.Equal(t, 200*ms, time.Since(lost))
	})
}

func TestAConnectionThatDoesNotLastDoesNotResetTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		start(t, g)
		for i, wait := range []time.Duration{0, 200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond} {
			before := time.Now()
			l, _ := g.accept(t, connected())
			require.Equal(t, wait, time.Since(before), i)
			l.close(errcode.CloseOverloaded)
		}
	})
}

func TestWaitsAreSpreadOverTheirWholeRange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(1, 2))
		least, most := time.Hour, time.Duration(0)
		for range 200 {
			g := newGateway()
			g.down = errors.New("refused")
			c, _ := start(t, g, func(cfg *client.Config) { cfg.Backoff.Random = random.Float64 })
			time.Sleep(200 * time.Millisecond)
			require.NoError(t, c.Close())
			require.Greater(t, len(g.dialed), 1)
			wait := g.dialed[1].Sub(g.dialed[0])
			least, most = min(least, wait), max(most, wait)
		}
		require.Less(t, least, 10*time.Millisecond)
		require.Greater(t, most, 190*time.Millisecond)
		require.LessOrEqual(t, most, 200*time.Millisecond)
	})
}

func TestAnAttemptThatGetsNoAnswerTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		start(t, g)
		began := time.Now()
		silent := <-g.links
		silent.recv(t)
		g.accept(t, connected())
		require.Equal(t, 10*time.Second+200*time.Millisecond, time.Since(began))
		<-silent.closed
	})
}

func TestSilenceForTwoHeartbeatsIsTheEndOfAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, h := newGateway(), newHistory(1)
		start(t, g)
		l, _ := g.accept(t, &clientv1.Connected{HeartbeatMs: 5000, Conversations: []*clientv1.Conversation{h.info()}})
		for range 5 {
			time.Sleep(9 * time.Second)
			l.send(h.beat())
			f, err := l.next()
			require.NoError(t, err)
			require.NotNil(t, f.GetPong(), "a heartbeat is answered")
		}
		heard := time.Now()
		g.accept(t, connected())
		require.Equal(t, 10*time.Second+200*time.Millisecond, time.Since(heard))
		<-l.closed
	})
}

func TestGoAwayIsFollowedAfterItsDelay(t *testing.T) {
	goAway := &clientv1.ServerFrame{Message: &clientv1.ServerFrame_GoAway{GoAway: &clientv1.GoAway{ReconnectDelayMs: 3500}}}
	for _, closes := range []bool{false, true} {
		t.Run(fmt.Sprint("gateway closes first: ", closes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGateway()
				start(t, g)
				l, _ := g.accept(t, connected())
				told := time.Now()
				l.send(goAway)
				if closes {
					time.Sleep(time.Second)
					l.close(errcode.CloseGoingAway)
				}
				g.accept(t, connected())
				require.Equal(t, 3500*time.Millisecond, time.Since(told))
				<-l.closed
			})
		})
	}
}

func TestAfterGoAwayWaitsBeginSmall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		start(t, g)
		l, _ := g.accept(t, connected())
		told := time.Now()
		l.send(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_GoAway{GoAway: &clientv1.GoAway{ReconnectDelayMs: 3500}}})
		g.setDown(errors.New("refused"))
		time.Sleep(4 * time.Second)
		synctest.Wait()
		var after []time.Duration
		for _, at := range g.dialed[1:] {
			after = append(after, at.Sub(told))
		}
		ms := time.Millisecond
		require.Equal(t, []time.Duration{3500 * ms, 3700 * ms}, after, "when the next gateway is unavailable, too, it backs off as usual")
		g.setDown(nil)
	})
}

func TestCloseCodesDecide(t *testing.T) {
	for _, code := range []errcode.CloseCode{1001, 1006, errcode.CloseSlow, errcode.CloseTokenExpired, 4499, 5000} {
		synctest.Test(t, func(t *testing.T) {
			g := newGateway()
			c, _ := start(t, g)
			l, _ := g.accept(t, connected())
			l.close(code)
			g.accept(t, connected())
			require.NoError(t, c.Ready(t.Context()))
			require.Equal(t, uint64(1), c.Stats().Reconnects)
		})
	}
	for _, code := range []errcode.CloseCode{errcode.CloseProtocol, errcode.CloseStayAway, 4999} {
		synctest.Test(t, func(t *testing.T) {
			g := newGateway()
			c, v := start(t, g)
			l, _ := g.accept(t, connected())
			ticket, err := c.Enqueue("x", text("a"))
			require.NoError(t, err)
			l.recv(t)
			l.close(code)
			<-c.Ended()
			var closed *client.ClosedError
			require.ErrorAs(t, c.Err(), &closed)
			require.Equal(t, code, closed.Code)
			require.Equal(t, client.Closed, v.seen()[len(v.seen())-1])
			_, err = ticket.Wait(t.Context())
			require.ErrorAs(t, err, &closed)
			_, err = c.Enqueue("x", text("b"))
			require.ErrorAs(t, err, &closed)
			require.ErrorAs(t, c.Close(), &closed)
		})
	}
}

func TestARefusedConnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		c, _ := start(t, g)
		l := <-g.links
		l.send(&clientv1.ServerFrame{Id: l.recv(t).GetId(), Message: &clientv1.ServerFrame_Error{Error: &conversationv1.Error{
			Code: conversationv1.ErrorCode_ERROR_CODE_RATE_LIMITED, RetryAfterMs: 7000,
		}}})
		l.close(errcode.CloseOverloaded)
		refused := time.Now()
		l = <-g.links
		require.Equal(t, 7*time.Second, time.Since(refused), "the gateway's wait is kept")
		l.send(refuse(l.recv(t).GetId(), conversationv1.ErrorCode_ERROR_CODE_UNAUTHENTICATED))
		l.close(errcode.CloseUnauthenticated)
		<-c.Ended()
		var closed *client.ClosedError
		require.ErrorAs(t, c.Err(), &closed)
		var refusal *client.RefusedError
		require.ErrorAs(t, c.Err(), &refusal)
		require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_UNAUTHENTICATED, refusal.Code)
	})
}

func TestTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		calls := 0
		start(t, g, func(cfg *client.Config) {
			cfg.Token = func(context.Context) (string, error) {
				if calls++; calls == 1 {
					return "", errors.New("issuer is away")
				}
				return fmt.Sprint("token ", calls), nil
			}
		})
		l, connect := g.accept(t, connected())
		require.Equal(t, "token 2", connect.GetToken(), "a token that could not be obtained is requested again")

		expiring := &clientv1.ServerFrame{Message: &clientv1.ServerFrame_TokenExpiring{TokenExpiring: &clientv1.TokenExpiring{ExpiresMs: 1}}}
		l.send(expiring, expiring)
		f := l.recv(t)
		require.Equal(t, "token 3", f.GetRefresh().GetToken())
		l.silent(t)
		l.send(&clientv1.ServerFrame{Id: f.GetId(), Message: &clientv1.ServerFrame_Refreshed{Refreshed: &clientv1.Refreshed{}}})
		l.send(expiring)
		require.Equal(t, "token 4", l.recv(t).GetRefresh().GetToken())

		// The connection is closed while the refresh is unanswered. The next connection gets a new token, so the refresh
		// is not repeated.
		l.close(errcode.CloseTokenExpired)
		l, connect = g.accept(t, connected())
		require.Equal(t, "token 5", connect.GetToken())
		l.silent(t)
	})
}

func TestABrokenGatewayIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		start(t, g)
		l, _ := g.accept(t, connected())
		l.toClient <- []byte{0xff}
		<-l.closed
		g.accept(t, connected())
	})
}

func TestTheContextOfStartEndsTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		c, err := client.New(client.Config{URL: "ws://gateway", DeviceID: "phone", Dial: g.dial, Token: func(ctx context.Context) (string, error) {
			<-ctx.Done()
			return "", ctx.Err()
		}})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		require.NoError(t, c.Run(ctx))
		require.Equal(t, client.Closed, c.State())
	})
}
