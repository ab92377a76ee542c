package websocket_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/frame"

	"github.com/runnelhq/runnel/services/gateway/link"
	"github.com/runnelhq/runnel/services/gateway/link/linktest"
	"github.com/runnelhq/runnel/services/gateway/link/outbox"
	ours "github.com/runnelhq/runnel/services/gateway/link/websocket"
	"github.com/runnelhq/runnel/services/gateway/metrics"
)

// patience is for what happens in a moment.
const patience = 30 * time.Second

// bed is a link whose client is a bare socket, which may send anything.
type bed struct {
	*testing.T

	shared  *outbox.Shared
	budget  *ours.Budget
	client  net.Conn
	replies *bufio.Reader
	link    *ours.Link
	read    *atomic.Int64 // bytes that the server has read from the socket since the upgrade
}

// counted is the server's end of a socket.
type counted struct {
	net.Conn
	read *atomic.Int64
}

func (c counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.read.Add(int64(n))
	return n, err
}

type counting struct {
	net.Listener
	read *atomic.Int64
}

func (l counting) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return counted{conn, l.read}, nil
}

func openRaw(t *testing.T, receiver link.Receiver) *bed {
	t.Helper()
	b := &bed{T: t, shared: linktest.Shared(), budget: ours.NewBudget(60_000), read: &atomic.Int64{}}
	transport := ours.New(ours.Config{
		MaxMessageBytes: maxMessage, MaxFirstBytes: maxFirst, OriginAllowed: func(*http.Request) bool { return true },
		Strangers: b.budget, Outboxes: b.shared, Metrics: b.shared.Metrics,
	})
	links := make(chan *ours.Link, 1)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if l := transport.Accept(w, r, "192.0.2.1", 1); l != nil {
			links <- l
			l.Serve(receiver)
		}
	}))
	server.Listener = counting{server.Listener, b.read}
	server.Start()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", server.Listener.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = conn.Close()
		server.Close()
		transport.WaitForReaders()
		b.shared.Writers.Wait()
	})
	b.client = conn
	b.send([]byte("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: " + frame.Proto.Subprotocol() + "\r\n\r\n"))
	b.replies = bufio.NewReader(conn)
	for {
		line, err := b.replies.ReadString('\n')
		require.NoError(t, err)
		if strings.TrimSpace(line) == "" {
			break
		}
	}
	b.link = <-links
	b.read.Store(0)
	return b
}

func (b *bed) send(data []byte) {
	b.Helper()
	_, err := b.client.Write(data)
	require.NoError(b, err)
}

// frames reads what the server sends until it closes its side of the socket.
func (b *bed) frames() (opcodes []int, code errcode.CloseCode) {
	b.Helper()
	require.NoError(b, b.client.SetReadDeadline(time.Now().Add(patience)))
	for {
		var head [2]byte
		if _, err := io.ReadFull(b.replies, head[:]); err != nil {
			return opcodes, code
		}
		require.Less(b, int(head[1]), 126, "no long frames here")
		payload := make([]byte, head[1])
		_, err := io.ReadFull(b.replies, payload)
		require.NoError(b, err)
		opcodes = append(opcodes, int(head[0]&0xf))
		if head[0]&0xf == websocket.CloseMessage {
			code = errcode.CloseCode(binary.BigEndian.Uint16(payload))
			return opcodes, code
		}
	}
}

// head is the header of a masked frame that announces so many bytes. The mask is zero.
func head(final bool, opcode byte, size uint64) []byte {
	first := opcode
	if final {
		first |= 0x80
	}
	switch {
	case size < 126:
		return append([]byte{first, 0x80 | byte(size)}, 0, 0, 0, 0)
	case size <= 0xffff:
		return append(binary.BigEndian.AppendUint16([]byte{first, 0x80 | 126}, uint16(size)), 0, 0, 0, 0)
	default:
		return append(binary.BigEndian.AppendUint64([]byte{first, 0x80 | 127}, size), 0, 0, 0, 0)
	}
}

func whole(opcode byte, size int) []byte {
	return append(head(true, opcode, uint64(size)), make([]byte, size)...)
}

func part(final bool, opcode byte, size int) []byte {
	return append(head(final, opcode, uint64(size)), make([]byte, size)...)
}

const (
	more = 0 // continuation
	text = websocket.TextMessage
	data = websocket.BinaryMessage
	ping = websocket.PingMessage
	pong = websocket.PongMessage
)

// A frame is judged by its header: the client hears the code although it sends no payload, the server sends nothing else, and
// reads no more than a little.
func TestABadFrameIsRefusedByItsHeader(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		sent    []byte
		code    errcode.CloseCode
		counted int // refusals for size
	}{
		"a size of 2^63":                      {head(true, data, 1<<63), errcode.CloseTooLarge, 1},
		"the greatest size":                   {head(true, data, 1<<64-1), errcode.CloseTooLarge, 1},
		"a size of 2^62":                      {head(true, data, 1<<62), errcode.CloseTooLarge, 1},
		"the limit and one":                   {head(true, data, maxFirst+1), errcode.CloseTooLarge, 1},
		"the limit and one, in two fragments": {append(part(false, data, maxFirst), head(true, more, 1)...), errcode.CloseTooLarge, 1},
		"a fragment of 2^63 after another":    {append(part(false, data, 1), head(true, more, 1<<63)...), errcode.CloseTooLarge, 1},
		"two fragments of 2^63-1 in all":      {append(part(false, data, 100), head(true, more, 1<<63-1)...), errcode.CloseTooLarge, 1},
		"empty fragments without end":         {append(head(false, data, 0), bytes.Repeat(head(false, more, 0), 25_000)...), errcode.CloseTooLarge, 1},
		"fragments of a byte without end":     {append(head(false, data, 0), bytes.Repeat(part(false, more, 1), 20_000)...), errcode.CloseTooLarge, 1},
		"an unknown opcode":                   {head(true, 3, 0), errcode.CloseProtocol, 0},
		"an unknown control opcode":           {head(true, 11, 0), errcode.CloseProtocol, 0},
		"a reserved bit":                      {[]byte{0x80 | 0x40 | data, 0x80, 0, 0, 0, 0}, errcode.CloseProtocol, 0},
		"no mask":                             {[]byte{0x80 | data, 0}, errcode.CloseProtocol, 0},
		"a continuation of nothing":           {head(true, more, 0), errcode.CloseProtocol, 0},
		"a message inside a message":          {append(part(false, data, 1), head(true, data, 1)...), errcode.CloseProtocol, 0},
		"a fragmented ping":                   {head(false, ping, 0), errcode.CloseProtocol, 0},
		"a long ping":                         {head(true, ping, 126), errcode.CloseProtocol, 0},
		"a ping of 2^63":                      {head(true, ping, 1<<63), errcode.CloseProtocol, 0},
		"a close with half a code":            {append(head(true, websocket.CloseMessage, 2), 0, 1), errcode.CloseProtocol, 0},
		"text for binary":                     {head(true, text, 0), errcode.CloseProtocol, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			receiver := newEnding(true)
			b := openRaw(t, receiver)
			go func() { _, _ = b.client.Write(c.sent) }()
			opcodes, code := b.frames()
			require.Equal(t, c.code, code)
			require.Equal(t, []int{websocket.CloseMessage}, opcodes, "nothing but the link's own close frame")
			require.InDelta(t, c.counted, testutil.ToFloat64(b.shared.Metrics.Limits[metrics.LimitFrameBytes]), 0)
			require.NoError(t, b.client.Close())
			require.Equal(t, c.code, <-receiver.code)
			require.LessOrEqual(t, b.read.Load(), int64(maxFirst+2*(64<<10)+1024), "of what was sent")
			require.Zero(t, b.budget.Used())
			require.Zero(t, receiver.count.Load(), "nothing is handed over")
		})
	}
}

// What follows a refused frame is discarded, but not all of it: a client that goes on sending is not read from.
func TestOfARefusedMessageLittleIsRead(t *testing.T) {
	receiver := newEnding(true)
	b := openRaw(t, receiver)
	flooded := make(chan int64, 1)
	go func() {
		sent, err := io.Copy(b.client, io.MultiReader(bytes.NewReader(head(true, data, 1<<40)), endless{}))
		t.Log("sent until the socket was closed:", sent, err)
		flooded <- sent
	}()
	_, code := b.frames()
	require.Equal(t, errcode.CloseTooLarge, code)
	require.Equal(t, errcode.CloseTooLarge, <-receiver.code, "after the grace of a close, although the client does not stop")
	require.LessOrEqual(t, b.read.Load(), int64(64<<10+1024))
	<-flooded // the server closed the socket
}

// endless gives zeros.
type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// A limit is exact, by whole messages and by fragments, and grows when the client is connected.
func TestMessagesUpToTheLimitAreTaken(t *testing.T) {
	receiver := newEnding(true)
	b := openRaw(t, receiver)
	b.send(part(false, data, maxFirst-10))
	b.send(whole(ping, 3)) // between two fragments
	b.send(part(true, more, 10))
	<-receiver.received
	b.send(whole(data, maxMessage))
	b.send(head(true, data, maxMessage+1))
	opcodes, code := b.frames()
	require.Equal(t, errcode.CloseTooLarge, code)
	require.Equal(t, []int{pong, websocket.CloseMessage}, opcodes)
	require.EqualValues(t, 2, receiver.count.Load())
	require.NoError(t, b.client.Close())
	<-receiver.code
}

// counter allows a number of control messages, then closes the link, as a session does.
type counter struct {
	*ending
	link atomic.Pointer[ours.Link]
	seen atomic.Int32
}

const mostControl = 100

func (c *counter) AllowControl() bool {
	if c.seen.Add(1) > mostControl {
		c.link.Load().Close(errcode.CloseFlood, "")
	}
	return false
}

// Control messages of every kind are counted, asked for or not, between messages and between fragments.
func TestAFloodOfControlMessagesIsCounted(t *testing.T) {
	for name, flood := range map[string][]byte{
		"pings":                   bytes.Repeat(whole(ping, 0), 2*mostControl),
		"pongs":                   bytes.Repeat(whole(pong, 100), 2*mostControl),
		"pongs between fragments": append(part(false, data, 1), bytes.Repeat(whole(pong, 0), 2*mostControl)...),
	} {
		t.Run(name, func(t *testing.T) {
			receiver := &counter{ending: newEnding(false)}
			b := openRaw(t, receiver)
			receiver.link.Store(b.link)
			go func() { _, _ = b.client.Write(flood) }()
			_, code := b.frames()
			require.Equal(t, errcode.CloseFlood, code)
			require.NoError(t, b.client.Close())
			require.Equal(t, errcode.CloseFlood, <-receiver.code)
		})
	}
}

// Clients that are not connected share the memory for their first messages. One above it is asked to come back.
func TestTheMemoryOfStrangersIsBounded(t *testing.T) {
	waiting, receiver := newEnding(true), newEnding(true)
	first := openRaw(t, waiting)
	require.True(t, first.budget.Take(20_000)) // by other clients
	first.send(append(head(true, data, maxFirst), make([]byte, maxFirst-1)...))
	_, code := first.frames()
	require.Equal(t, errcode.CloseOverloaded, code, fmt.Sprint("the memory is used: ", first.budget.Used()))
	require.NoError(t, first.client.Close())
	<-waiting.code
	require.EqualValues(t, 20_000, first.budget.Used(), "it is given back")
	require.InDelta(t, 1, testutil.ToFloat64(first.shared.Metrics.Limits[metrics.LimitUnauthenticatedBytes]), 0)

	second := openRaw(t, receiver)
	second.send(whole(data, maxFirst))
	<-receiver.received
	require.Eventually(t, func() bool { return second.budget.Used() == 0 }, patience, time.Millisecond)
	require.True(t, second.budget.Take(60_000))
	second.send(whole(data, maxMessage)) // who is connected does not need it
	require.Eventually(t, func() bool { return receiver.count.Load() == 2 }, patience, time.Millisecond)
	second.link.Close(errcode.CloseGoingAway, "")
	require.NoError(t, second.client.Close())
	<-receiver.code
}
