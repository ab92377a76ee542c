package websocket_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/frame"

	"github.com/runnelhq/runnel/services/gateway/link"
	"github.com/runnelhq/runnel/services/gateway/link/linktest"
	"github.com/runnelhq/runnel/services/gateway/link/outbox"
	ours "github.com/runnelhq/runnel/services/gateway/link/websocket"
	"github.com/runnelhq/runnel/services/gateway/metrics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	maxFirst   = 50_000
	maxMessage = 100_000
)

// client is the other end, with another implementation of WebSocket.
type client struct {
	*websocket.Conn

	kind int
}

func (c *client) Send(message []byte) error { return c.WriteMessage(c.kind, message) }

func (c *client) Next() ([]byte, errcode.CloseCode, error) {
	_, data, err := c.ReadMessage()
	if closed, is := err.(*websocket.CloseError); is && closed.Code != websocket.CloseAbnormalClosure { //nolint:errorlint // ReadMessage does not wrap it
		return nil, errcode.CloseCode(closed.Code), nil
	}
	return data, 0, err
}

func (c *client) Close(code errcode.CloseCode) {
	_ = c.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(int(code), ""))
}

func (c *client) Lose() { _ = c.Conn.Close() }

// open serves one link over a real socket.
func open(codec frame.Codec) linktest.Open {
	return func(t *testing.T, shared *outbox.Shared, receiver link.Receiver) (link.Link, linktest.Client) {
		t.Helper()
		transport := ours.New(ours.Config{
			MaxMessageBytes: maxMessage, MaxFirstBytes: maxFirst, OriginAllowed: func(*http.Request) bool { return true }, Outboxes: shared, Metrics: shared.Metrics,
		})
		links := make(chan *ours.Link, 1)
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if l := transport.Accept(w, r, "192.0.2.1", 1); l != nil {
				links <- l
				l.Serve(receiver)
			}
		}))
		dialer := websocket.Dialer{Subprotocols: []string{codec.Subprotocol()}}
		conn, response, err := dialer.DialContext(t.Context(), "ws"+strings.TrimPrefix(server.URL, "http"), nil)
		require.NoError(t, err)
		_ = response.Body.Close()
		t.Cleanup(func() {
			_ = conn.Close()
			server.Close()
			transport.WaitForReaders()
			shared.Writers.Wait()
		})
		return <-links, &client{Conn: conn, kind: codec.MessageType()}
	}
}

func TestLink(t *testing.T) {
	linktest.Run(t, open(frame.Proto))
}

// ending is a receiver that only waits for the end of the link.
type ending struct {
	code     chan errcode.CloseCode
	allow    bool
	count    atomic.Int32
	received chan struct{} // closed by the first message
}

func newEnding(allow bool) *ending {
	return &ending{code: make(chan errcode.CloseCode, 1), allow: allow, received: make(chan struct{})}
}

func (e *ending) Receive([]byte) {
	if e.count.Add(1) == 1 {
		close(e.received)
	}
}

func (e *ending) AllowControl() bool { return e.allow }
func (e *ending) Opened() bool       { return e.count.Load() > 0 }

func (e *ending) Ended(code errcode.CloseCode) { e.code <- code }

func TestBadMessagesCloseTheLink(t *testing.T) {
	for name, c := range map[string]struct {
		first []int // sizes of messages that are accepted before
		kind  int
		size  int
		code  errcode.CloseCode
	}{
		"too large for the first":            {nil, websocket.BinaryMessage, maxFirst + 1, errcode.CloseTooLarge},
		"too large":                          {[]int{maxFirst, maxMessage}, websocket.BinaryMessage, maxMessage + 1, errcode.CloseTooLarge},
		"far too large":                      {nil, websocket.BinaryMessage, 3 << 20, errcode.CloseTooLarge},
		"the wrong kind for the subprotocol": {nil, websocket.TextMessage, 1, errcode.CloseProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			shared := linktest.Shared()
			receiver := newEnding(true)
			_, far := open(frame.Proto)(t, shared, receiver)
			theirs, _ := far.(*client)
			for _, size := range c.first {
				require.NoError(t, far.Send(make([]byte, size)))
			}
			go func() { _ = theirs.WriteMessage(c.kind, make([]byte, c.size)) }()
			_, code, err := far.Next()
			if err == nil {
				require.Equal(t, c.code, code)
			}
			far.Lose()
			require.Equal(t, c.code, <-receiver.code)
			require.EqualValues(t, len(c.first), receiver.count.Load(), "it is not handed over")
			if c.code == errcode.CloseTooLarge {
				require.InDelta(t, 1, testutil.ToFloat64(shared.Metrics.Limits[metrics.LimitFrameBytes]), 0)
			}
		})
	}
}

// Pings are answered as the receiver allows.
func TestPings(t *testing.T) {
	for _, allow := range []bool{true, false} {
		receiver := newEnding(allow)
		l, far := open(frame.Proto)(t, linktest.Shared(), receiver)
		theirs, _ := far.(*client)
		pongs := 0
		theirs.SetPongHandler(func(data string) error {
			require.Equal(t, "are you there", data)
			pongs++
			return nil
		})
		require.NoError(t, theirs.WriteMessage(websocket.PingMessage, []byte("are you there")))
		require.NoError(t, far.Send([]byte("x")))
		go func() {
			<-receiver.received
			l.Close(errcode.CloseGoingAway, "")
		}()
		_, code, err := far.Next()
		require.NoError(t, err)
		require.Equal(t, errcode.CloseGoingAway, code)
		require.Equal(t, allow, pongs == 1)
		far.Lose()
		<-receiver.code
	}
}

// A request that is not a WebSocket handshake with a known subprotocol is answered over HTTP and counted.
func TestHandshakesThatAreRefused(t *testing.T) {
	shared := linktest.Shared()
	transport := ours.New(ours.Config{
		MaxMessageBytes: maxMessage, MaxFirstBytes: maxFirst, OriginAllowed: func(r *http.Request) bool { return r.Header.Get("Origin") == "" }, Outboxes: shared, Metrics: shared.Metrics,
	})
	for name, c := range map[string]struct {
		header http.Header
		status int
		reject metrics.Reject
	}{
		"no subprotocol":      {http.Header{}, http.StatusBadRequest, metrics.RejectSubprotocol},
		"another subprotocol": {http.Header{"Sec-Websocket-Protocol": {"graphql-ws"}}, http.StatusBadRequest, metrics.RejectSubprotocol},
		"no upgrade":          {http.Header{"Sec-Websocket-Protocol": {frame.JSON.Subprotocol()}}, http.StatusBadRequest, metrics.RejectHandshake},
		"another origin": {http.Header{
			"Sec-Websocket-Protocol": {frame.JSON.Subprotocol()}, "Origin": {"https://evil.example.com"}, "Connection": {"Upgrade"},
			"Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="},
		}, http.StatusForbidden, metrics.RejectHandshake},
	} {
		t.Run(name, func(t *testing.T) {
			before := testutil.ToFloat64(shared.Metrics.Rejects[c.reject])
			r, w := httptest.NewRequest(http.MethodGet, "/v1/ws", nil), httptest.NewRecorder()
			r.Header = c.header
			require.Nil(t, transport.Accept(w, r, "192.0.2.1", 1))
			require.Equal(t, c.status, w.Code)
			require.InDelta(t, before+1, testutil.ToFloat64(shared.Metrics.Rejects[c.reject]), 0)
		})
	}
}
