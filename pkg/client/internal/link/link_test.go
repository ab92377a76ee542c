package link_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/runnelhq/runnel/pkg/client/internal/link"
	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/frame"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	connectTimeout = 10 * time.Second
	heartbeat      = 30 * time.Second
)

var (
	errNoToken = errors.New("no token")
	errNoRoute = errors.New("no route")
	errFrame   = errors.New("bad frame")
	errReset   = errors.New("connection reset")
	errOwn     = errors.New("a reason of ours")
)

// fakeConn is a connection for which the test supplies the messages to read, and receives the written messages.
type fakeConn struct {
	in, out chan []byte

	once   sync.Once
	closed chan struct{}
	err    error
}

func newFakeConn() *fakeConn {
	return &fakeConn{in: make(chan []byte, 100), out: make(chan []byte, 100), closed: make(chan struct{})}
}

func (c *fakeConn) ReadMessage() ([]byte, error) {
	select {
	case message := <-c.in:
		return message, nil
	case <-c.closed:
		select {
		case message := <-c.in: // frames sent before the end still arrive
			return message, nil
		default:
			return nil, c.err
		}
	}
}

func (c *fakeConn) WriteMessage(message []byte) error {
	select {
	case c.out <- append([]byte(nil), message...):
		return nil
	case <-c.closed:
		return c.err
	}
}

func (c *fakeConn) Close() error {
	c.end(errors.New("closed by the client"))
	return nil
}

func (c *fakeConn) end(err error) {
	c.once.Do(func() {
		c.err = err
		close(c.closed)
	})
}

// send sends frames to the client, in one message.
func (c *fakeConn) send(frames ...*clientv1.ServerFrame) {
	var message []byte
	for _, f := range frames {
		message = frame.AppendServer(message, frame.Proto, f)
	}
	c.in <- message
}

// written returns the frames that the client has written since the last call, as text.
func (c *fakeConn) written(t *testing.T) (texts []string) {
	t.Helper()
	synctest.Wait()
	for {
		select {
		case message := <-c.out:
			require.NoError(t, frame.DecodeClient(frame.Proto, message, func(f *clientv1.ClientFrame) error {
				switch {
				case f.GetConnect() != nil:
					texts = append(texts, "connect "+f.GetConnect().GetToken())
				case f.GetPong() != nil:
					texts = append(texts, "pong")
				default:
					texts = append(texts, f.GetRead().GetConversationId())
				}
				return nil
			}))
		default:
			return texts
		}
	}
}

// handler is a link.Handler that records its calls.
type handler struct {
	mu    sync.Mutex
	calls []string
	link  *link.Link
	// outgoing contains the results of Append, each returned once. last is the result while the link is closing.
	outgoing []string
	last     string
	due      time.Time
	// receive, if set, is called by Receive.
	receive    func(f *clientv1.ServerFrame) error
	connectErr error
}

func (h *handler) notef(format string, args ...any) {
	h.calls = append(h.calls, fmt.Sprintf(format, args...))
}

func (h *handler) ConnectMessage(token string) *clientv1.Connect {
	return &clientv1.Connect{Token: token}
}

func (h *handler) Connected(l *link.Link, f *clientv1.ServerFrame) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.link = l
	h.notef("connected %s", f.GetConnected().GetUserId())
	return h.connectErr
}

func (h *handler) Receive(f *clientv1.ServerFrame, _ time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.notef("received %T", f.GetMessage())
	if h.receive != nil {
		return h.receive(f)
	}
	return nil
}

func (h *handler) Append(l *link.Link, message []byte, frames int) ([]byte, time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	say := func(text string) {
		read := &clientv1.ClientFrame{Request: &clientv1.ClientFrame_Read{Read: &clientv1.Read{ConversationId: text}}}
		message = frame.AppendClient(message, frame.Proto, read)
	}
	switch {
	case l.Closing():
		if h.last != "" {
			say(h.last)
			h.last = ""
		}
	case len(h.outgoing) > 0:
		say(h.outgoing[0])
		h.outgoing = h.outgoing[1:]
	case !h.due.IsZero() && !time.Now().Before(h.due):
		say("due")
		h.due = time.Time{}
	}
	return message, h.due
}

func (h *handler) Disconnected() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.notef("disconnected")
}

// seen returns the calls so far.
func (h *handler) seen() []string {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.calls...)
}

// fixture is a link on a fake connection.
type fixture struct {
	*handler

	conn   *fakeConn
	cancel context.CancelFunc
	ended  chan link.End
}

func (f *fixture) run(t *testing.T, change ...func(*link.Config)) {
	t.Helper()
	f.conn, f.ended = newFakeConn(), make(chan link.End, 1)
	if f.handler == nil {
		f.handler = &handler{}
	}
	cfg := link.Config{
		Codec: frame.Proto, ConnectTimeout: connectTimeout, Handler: f.handler,
		Token: func(context.Context) (string, error) { return "token", nil },
		Dial:  func(context.Context) (link.Conn, error) { return f.conn, nil },
	}
	for _, change := range change {
		change(&cfg)
	}
	ctx, cancel := context.WithCancel(t.Context())
	f.cancel = cancel
	go func() { f.ended <- link.New(cfg).Run(ctx) }()
	t.Cleanup(cancel)
}

// connected runs a link and accepts its connection.
func connected(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{}
	f.run(t)
	require.Equal(t, []string{"connect token"}, f.conn.written(t))
	f.conn.send(accept())
	require.Equal(t, []string{"connected alice"}, f.seen())
	return f
}

func accept() *clientv1.ServerFrame {
	return &clientv1.ServerFrame{Id: link.ConnectID, Message: &clientv1.ServerFrame_Connected{Connected: &clientv1.Connected{
		UserId: "alice", HeartbeatMs: uint32(heartbeat.Milliseconds()),
	}}}
}

func beat() *clientv1.ServerFrame {
	return &clientv1.ServerFrame{Message: &clientv1.ServerFrame_Heartbeat{Heartbeat: &clientv1.Heartbeat{}}}
}

func goAway(after time.Duration) *clientv1.ServerFrame {
	return &clientv1.ServerFrame{Message: &clientv1.ServerFrame_GoAway{GoAway: &clientv1.GoAway{ReconnectDelayMs: uint32(after.Milliseconds())}}}
}

func TestAnAttemptThatFails(t *testing.T) {
	refusal := &conversationv1.Error{Code: conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE, RetryAfterMs: 7}
	refuse := &clientv1.ServerFrame{Id: link.ConnectID, Message: &clientv1.ServerFrame_Error{Error: refusal}}
	for name, test := range map[string]struct {
		change func(*link.Config)
		answer func(*fakeConn)
		check  func(*testing.T, link.End)
	}{
		"no token": {
			change: func(cfg *link.Config) { cfg.Token = func(context.Context) (string, error) { return "", errNoToken } },
			check:  func(t *testing.T, end link.End) { t.Helper(); require.ErrorIs(t, end.Err, errNoToken) },
		},
		"no connection": {
			change: func(cfg *link.Config) { cfg.Dial = func(context.Context) (link.Conn, error) { return nil, errNoRoute } },
			check:  func(t *testing.T, end link.End) { t.Helper(); require.ErrorIs(t, end.Err, errNoRoute) },
		},
		"the token takes too long": {
			change: func(cfg *link.Config) {
				cfg.Token = func(ctx context.Context) (string, error) {
					<-ctx.Done()
					return "", ctx.Err()
				}
			},
			check: func(t *testing.T, end link.End) { t.Helper(); require.ErrorIs(t, end.Err, context.DeadlineExceeded) },
		},
		"no answer": {
			check: func(t *testing.T, end link.End) { t.Helper(); require.ErrorContains(t, end.Err, "connection was lost") },
		},
		"the connection ends": {
			answer: func(c *fakeConn) { c.end(errReset) },
			check:  func(t *testing.T, end link.End) { t.Helper(); require.ErrorIs(t, end.Err, errReset) },
		},
		"a refusal, then the end": {
			answer: func(c *fakeConn) {
				c.send(refuse)
				c.end(errReset)
			},
			check: func(t *testing.T, end link.End) {
				t.Helper()
				require.ErrorIs(t, end.Err, errReset)
				require.Equal(t, refusal.GetCode(), end.Refusal.GetCode())
				require.Nil(t, end.Close)
			},
		},
		"a refusal, then a close code": {
			answer: func(c *fakeConn) {
				c.send(refuse)
				c.end(&websocket.CloseError{Code: int(errcode.CloseStayAway), Text: "stay"})
			},
			check: func(t *testing.T, end link.End) {
				t.Helper()
				require.Equal(t, &link.Close{Code: errcode.CloseStayAway, Reason: "stay"}, end.Close)
				require.EqualValues(t, 7, end.Refusal.GetRetryAfterMs())
			},
		},
		"an answer that is not understood": {
			answer: func(c *fakeConn) { c.in <- []byte{0xff} },
			check: func(t *testing.T, end link.End) {
				t.Helper()
				require.ErrorContains(t, end.Err, "could not handle a message of the gateway")
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fixture{}
				began := time.Now()
				f.run(t, func(cfg *link.Config) {
					if test.change != nil {
						test.change(cfg)
					}
				})
				if test.answer != nil {
					synctest.Wait() // until connect was written
					test.answer(f.conn)
				}
				end := <-f.ended
				test.check(t, end)
				require.LessOrEqual(t, time.Since(began), connectTimeout)
				require.Zero(t, end.Connected)
				require.Empty(t, f.calls)
			})
		})
	}
}

func TestAHandlerMayRefuseTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fixture{handler: &handler{connectErr: errFrame}}
		f.run(t)
		f.conn.send(accept())
		end := <-f.ended
		require.ErrorIs(t, end.Err, errFrame)
		require.Zero(t, end.Connected)
		require.Equal(t, []string{"connected alice"}, f.seen(), "it was not connected, so it is not disconnected")
	})
}

func TestFramesThatComeWithTheAnswerAreReceivedAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fixture{}
		f.run(t)
		f.conn.send(accept(), beat(), goAway(time.Hour))
		require.Equal(t, []string{
			"connected alice", "received *clientv1.ServerFrame_Heartbeat", "received *clientv1.ServerFrame_GoAway",
		}, f.seen())
		require.Equal(t, []string{"connect token", "pong"}, f.conn.written(t))
	})
}

func TestWhatThereIsToSendIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := connected(t)
		f.mu.Lock()
		f.outgoing = []string{"a", "b"}
		f.mu.Unlock()
		require.Empty(t, f.conn.written(t), "it was not woken")
		f.link.Wake()
		f.link.Wake()
		require.Equal(t, []string{"a", "b"}, f.conn.written(t))

		// Work that becomes due needs no further wake-up.
		f.mu.Lock()
		f.due = time.Now().Add(time.Second)
		f.mu.Unlock()
		f.link.Wake()
		time.Sleep(time.Second - time.Nanosecond)
		require.Empty(t, f.conn.written(t))
		time.Sleep(time.Nanosecond)
		require.Equal(t, []string{"due"}, f.conn.written(t))

		// A pong is sent before all other frames.
		f.mu.Lock()
		f.outgoing = []string{"c"}
		f.mu.Unlock()
		f.conn.send(beat())
		require.Equal(t, []string{"pong", "c"}, f.conn.written(t))
	})
}

func TestTwoHeartbeatsOfSilenceEndALink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := connected(t)
		f.last = "never sent"
		time.Sleep(2*heartbeat - time.Nanosecond)
		f.conn.send(&clientv1.ServerFrame{}) // any frame counts
		synctest.Wait()
		time.Sleep(2*heartbeat - time.Nanosecond)
		select {
		case end := <-f.ended:
			require.Fail(t, "it ended too early", end.Err)
		default:
		}
		time.Sleep(time.Nanosecond)
		end := <-f.ended
		require.ErrorIs(t, end.Err, link.ErrSilent)
		require.Equal(t, "disconnected", f.seen()[len(f.seen())-1])
		require.Empty(t, f.conn.written(t), "nobody listens")
	})
}

func TestGoAwayIsFollowedAfterItsDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := connected(t)
		f.last = "last words"
		at := time.Now().Add(5 * time.Second)
		f.conn.send(goAway(5 * time.Second))
		time.Sleep(5*time.Second - time.Nanosecond)
		require.Empty(t, f.conn.written(t))
		time.Sleep(time.Nanosecond)
		require.Equal(t, []string{"last words"}, f.conn.written(t))
		end := <-f.ended
		require.ErrorIs(t, end.Err, link.ErrGoAway)
		require.Equal(t, at, end.ReconnectAt)
		require.Equal(t, 5*time.Second, end.ReconnectAt.Sub(end.Connected))
	})
}

func TestALinkThatFailsSaysItsLastWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := connected(t)
		f.mu.Lock()
		f.outgoing, f.last = []string{"a request"}, "last words"
		f.mu.Unlock()
		require.False(t, f.link.Closing())
		f.link.Fail(errOwn)
		f.link.Fail(errReset)
		require.True(t, f.link.Closing())
		end := <-f.ended
		require.Equal(t, errOwn, end.Err, "the first reason counts")
		require.Equal(t, []string{"last words"}, f.conn.written(t))
		require.Equal(t, []string{"connected alice", "disconnected"}, f.seen())
	})
}

func TestTheContextEndsALink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := connected(t)
		f.last = "last words"
		f.cancel()
		end := <-f.ended
		require.ErrorIs(t, end.Err, context.Canceled)
		require.Equal(t, []string{"last words"}, f.conn.written(t))
	})
}

func TestAStuckWriteEndsWithTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := connected(t)
		f.conn.out = make(chan []byte) // no goroutine reads it
		f.mu.Lock()
		f.outgoing = []string{"a"}
		f.mu.Unlock()
		f.link.Wake()
		synctest.Wait()
		f.conn.end(errReset)
		end := <-f.ended
		require.ErrorIs(t, end.Err, errReset)
		require.False(t, end.Connected.IsZero())
	})
}

func TestTheGatewayClosesALink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := connected(t)
		f.conn.end(&websocket.CloseError{Code: int(errcode.CloseSlow), Text: "slow"})
		end := <-f.ended
		require.Equal(t, &link.Close{Code: errcode.CloseSlow, Reason: "slow"}, end.Close)
		require.ErrorContains(t, end.Err, "closed by the gateway")
	})
}

func TestAFrameThatTheHandlerRefusesEndsALink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := connected(t)
		f.mu.Lock()
		f.receive = func(*clientv1.ServerFrame) error { return errFrame }
		f.mu.Unlock()
		f.conn.send(beat(), beat())
		end := <-f.ended
		require.ErrorIs(t, end.Err, errFrame)
		require.Equal(t, []string{"connected alice", "received *clientv1.ServerFrame_Heartbeat", "disconnected"}, f.seen())
	})
}

func TestWhatALinkStartedEndsWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := connected(t)
		f.mu.Lock()
		f.receive = func(*clientv1.ServerFrame) error {
			f.link.Go(func(ctx context.Context) {
				<-ctx.Done()
				time.Sleep(time.Second)
				f.mu.Lock()
				defer f.mu.Unlock()
				f.notef("worker ended")
			})
			return nil
		}
		f.mu.Unlock()
		f.conn.send(&clientv1.ServerFrame{})
		synctest.Wait()
		f.conn.end(errReset)
		<-f.ended
		require.Equal(t, "worker ended", f.calls[len(f.calls)-1], "Run waits for it")
	})
}
