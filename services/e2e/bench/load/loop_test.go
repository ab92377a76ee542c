//go:build linux

package load

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/frame"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// record reports calls of a handler to a test.
type record struct {
	events   chan uint64
	outcomes chan uint64
	opened   chan struct{}
	closed   chan string
}

func newRecord() *record {
	return &record{make(chan uint64, 100), make(chan uint64, 100), make(chan struct{}, 100), make(chan string, 100)}
}

func (r *record) Event(_ *Client, seq uint64, _ []byte, _ int64)  { r.events <- seq }
func (r *record) Outcome(_ *Client, _ int64, seq uint64, _ int64) { r.outcomes <- seq }
func (r *record) Connected(*Client, int64)                        { r.opened <- struct{}{} }
func (r *record) Closed(_ *Client, reason string, _ int64) error {
	r.closed <- reason
	return errors.New(reason)
}

// gateway answers connect, and then handles each frame as the test says.
func gateway(t *testing.T, head uint64, then func(ws *websocket.Conn, f *clientv1.ClientFrame)) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := (&websocket.Upgrader{Subprotocols: frame.Subprotocols()}).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer ws.Close()
		for {
			_, data, err := ws.ReadMessage()
			if err != nil {
				return
			}
			_ = frame.DecodeClient(frame.JSON, data, func(f *clientv1.ClientFrame) error {
				if f.GetConnect() != nil {
					answer(ws, &clientv1.ServerFrame{Id: f.GetId(), Message: &clientv1.ServerFrame_Connected{Connected: &clientv1.Connected{
						Conversations: []*clientv1.Conversation{{ConversationId: conversationID, Head: head}},
					}}})
				}
				then(ws, f)
				return nil
			})
		}
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func answer(ws *websocket.Conn, frames ...*clientv1.ServerFrame) {
	var data []byte
	for _, f := range frames {
		data = frame.AppendServer(data, frame.JSON, f)
	}
	_ = ws.WriteMessage(websocket.TextMessage, data)
}

func connected(t *testing.T, addr string) (*Loop, *Client, *record) {
	t.Helper()
	r := newRecord()
	l, err := NewLoop(r)
	require.NoError(t, err)
	t.Cleanup(l.Close)
	c := NewClient("u1", "token", conversationID, true)
	l.Connect(c, addr)
	<-r.opened
	return l, c, r
}

func TestAMessageGoesOutAndComesBackAndIsAcknowledged(t *testing.T) {
	acks := make(chan *clientv1.AckPosition, 10)
	addr := gateway(t, 4, func(ws *websocket.Conn, f *clientv1.ClientFrame) {
		if ack := f.GetAck(); ack != nil {
			acks <- ack.GetPositions()[0]
		}
		submit := f.GetSubmit()
		if submit == nil {
			return
		}
		text := submit.GetBody().GetMessage().GetText()
		if len(text) != TextBytes || submit.GetConversationId() != conversationID || submit.GetCommandId()[14] != '7' {
			t.Errorf("unexpected: %v", submit)
		}
		answer(ws, event(5, text), event(5, text), event(6, text), &clientv1.ServerFrame{
			Id: f.GetId(), Message: &clientv1.ServerFrame_Outcome{Outcome: &conversationv1.Outcome{Seq: 5}},
		})
	})
	l, c, r := connected(t, addr)
	require.NoError(t, c.Submit(Now()))
	require.EqualValues(t, 5, <-r.events)
	require.EqualValues(t, 6, <-r.events)
	require.EqualValues(t, 5, <-r.outcomes)
	require.EqualValues(t, 6, (<-acks).GetDelivered())
	require.EqualValues(t, 1, l.Repeats())
	require.NoError(t, l.Failures())
}

func TestAHoleIsAFailure(t *testing.T) {
	l, _, _ := connected(t, gateway(t, 4, func(ws *websocket.Conn, f *clientv1.ClientFrame) {
		if f.GetConnect() != nil {
			answer(ws, event(6, "x"))
		}
	}))
	require.Eventually(t, func() bool { return l.Failures() != nil }, time.Minute, time.Millisecond)
	require.ErrorContains(t, l.Failures(), "event 6 came after event 4")
}

func TestAClientResumesAndAnswersHeartbeats(t *testing.T) {
	resumed, pongs := make(chan uint64, 1), make(chan struct{}, 1)
	addr := gateway(t, 9, func(ws *websocket.Conn, f *clientv1.ClientFrame) {
		switch {
		case f.GetConnect() != nil:
			resumed <- f.GetConnect().GetResume()[0].GetSeq()
			answer(ws, &clientv1.ServerFrame{Message: &clientv1.ServerFrame_Heartbeat{Heartbeat: &clientv1.Heartbeat{}}})
		case f.GetPong() != nil:
			pongs <- struct{}{}
		}
	})
	r := newRecord()
	l, err := NewLoop(r)
	require.NoError(t, err)
	defer l.Close()
	c := NewClient("u1", "token", conversationID, false)
	c.StartAt(3)
	l.Connect(c, addr)
	require.EqualValues(t, 3, <-resumed)
	<-pongs
	l.Disconnect(c)
	require.ErrorIs(t, c.Submit(Now()), ErrClosed)
	require.NoError(t, l.Failures())
}

// A message before the handshake would break it, and one before the answer to connect is refused by the gateway.
func TestNothingIsSentBeforeTheClientIsAuthenticated(t *testing.T) {
	arrived, proceed := make(chan struct{}), make(chan struct{})
	addr := gateway(t, 4, func(*websocket.Conn, *clientv1.ClientFrame) {
		arrived <- struct{}{}
		<-proceed
	})
	r := newRecord()
	l, err := NewLoop(r)
	require.NoError(t, err)
	defer l.Close()
	c := NewClient("u1", "token", conversationID, true)
	c.fd, c.state = 0, stateConnecting // connected, but not authenticated
	require.ErrorIs(t, c.Submit(Now()), ErrClosed)
	c.fd, c.state = -1, stateClosed
	l.Connect(c, addr)
	<-arrived
	<-r.opened
	require.NoError(t, c.Submit(Now()))
	close(proceed)
	<-arrived
	l.Disconnect(c)
	require.ErrorIs(t, c.Submit(Now()), ErrClosed)
}

func TestACloseOfTheServerIsTold(t *testing.T) {
	l, _, r := connected(t, gateway(t, 0, func(ws *websocket.Conn, f *clientv1.ClientFrame) {
		_ = ws.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(4001, "slow"))
		_ = ws.Close()
	}))
	require.Equal(t, "4001 slow", <-r.closed)
	require.Eventually(t, func() bool { return l.Failures() != nil }, time.Minute, time.Millisecond)
}

func TestNobodyThereIsTold(t *testing.T) {
	r := newRecord()
	l, err := NewLoop(r)
	require.NoError(t, err)
	defer l.Close()
	l.Connect(NewClient("u1", "token", conversationID, true), "127.0.0.1:1")
	require.Contains(t, <-r.closed, "refused")
}

func TestPaceKeepsTheRate(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	begun := Now()
	n, err := Pace(ctx, 1000, func(i int) error {
		require.GreaterOrEqual(t, Now(), begun+int64(i)*int64(time.Millisecond), "never early")
		if i == 49 {
			cancel()
		}
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, 50, n)
	_, err = Pace(t.Context(), 1000, func(int) error { return ErrClosed })
	require.ErrorIs(t, err, ErrClosed)
}
