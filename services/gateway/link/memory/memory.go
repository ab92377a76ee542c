// Package memory is a link within the process: its client runs in the same process and reads the messages of the link. Tests of
// sessions and rooms use it, and so may a client that is built into a program. It never uses a socket.
package memory

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/runnelhq/runnel/pkg/errcode"

	"github.com/runnelhq/runnel/services/gateway/link"
	"github.com/runnelhq/runnel/services/gateway/link/outbox"
	"github.com/runnelhq/runnel/services/gateway/wire"
)

// Link is the server's end of a connection within the process.
type Link struct {
	outbox.Outbox

	encoding wire.Encoding
	client   *Client
	pipe     *pipe
}

// Client is the client's end of a Link. One goroutine may send while another one reads.
type Client struct {
	far      net.Conn
	reader   *bufio.Reader
	messages chan []byte
	gone     chan struct{}   // closed by Lose and Close
	ended    <-chan struct{} // closed when the link has ended
	once     sync.Once
	code     errcode.CloseCode // the code that the client closed with; guarded by once and gone
}

// New makes a link with a connected client.
func New(shared *outbox.Shared, number uint32, encoding wire.Encoding) (*Link, *Client) {
	near, far := net.Pipe()
	client := &Client{far: far, reader: bufio.NewReader(far), messages: make(chan []byte), gone: make(chan struct{})}
	l := &Link{encoding: encoding, client: client, pipe: &pipe{Conn: near, deadline: make(chan time.Time, 1), closed: make(chan struct{})}}
	l.Init(shared, l.pipe, number)
	client.ended = l.Done()
	return l, client
}

// Describe implements link.Link.
func (l *Link) Describe() link.Description {
	return link.Description{Encoding: l.encoding, Remote: "memory", QueuedBytes: l.QueuedBytes()}
}

// Serve implements link.Link. It returns when the link has ended. It accepts messages of any size.
func (l *Link) Serve(receiver link.Receiver) {
	var patience <-chan time.Time // fires if the client does not answer a close in time
	for {
		select {
		case deadline := <-l.pipe.deadline:
			timer := time.NewTimer(time.Until(deadline))
			defer timer.Stop()
			patience = timer.C
		case <-patience:
			receiver.Ended(l.End())
			return
		case <-l.pipe.closed: // the client did not read in time
			receiver.Ended(l.End())
			return
		case message := <-l.client.messages:
			if !l.Closing() {
				receiver.Receive(message)
			}
		case <-l.client.gone:
			if l.client.code != 0 {
				l.Close(l.client.code, "")
			}
			receiver.Ended(l.End())
			return
		}
	}
}

// Send hands a message to the link's receiver. It returns io.ErrClosedPipe when the link has ended.
func (c *Client) Send(message []byte) error {
	select {
	case c.messages <- message:
		return nil
	case <-c.gone:
		return io.ErrClosedPipe
	case <-c.ended:
		return io.ErrClosedPipe
	}
}

// Next reads the next message. If the link was closed, it returns the close code instead. If the connection was lost, it
// returns code 0 and an error.
func (c *Client) Next() (message []byte, code errcode.CloseCode, err error) {
	var head [2]byte
	if _, err := io.ReadFull(c.reader, head[:]); err != nil {
		return nil, 0, err
	}
	size := uint64(head[1])
	switch size {
	case 126:
		var long [2]byte
		_, err = io.ReadFull(c.reader, long[:])
		size = uint64(binary.BigEndian.Uint16(long[:]))
	case 127:
		var long [8]byte
		_, err = io.ReadFull(c.reader, long[:])
		size = binary.BigEndian.Uint64(long[:])
	}
	if err != nil {
		return nil, 0, err
	}
	message = make([]byte, size)
	if _, err := io.ReadFull(c.reader, message); err != nil {
		return nil, 0, err
	}
	if int(head[0]&0xf) == websocket.CloseMessage {
		c.leave(0) // a client answers a close by closing its end
		return nil, errcode.CloseCode(binary.BigEndian.Uint16(message)), nil
	}
	return message, 0, nil
}

// Close closes the link from the client's side.
func (c *Client) Close(code errcode.CloseCode) { c.leave(code) }

// Lose ends the client without closing the link.
func (c *Client) Lose() {
	_ = c.far.Close()
	c.leave(0)
}

func (c *Client) leave(code errcode.CloseCode) {
	c.once.Do(func() {
		c.code = code
		close(c.gone)
	})
}

// pipe implements outbox.Transport for a Link. A write succeeds only while the client reads, so the writer goroutine does
// all writing.
type pipe struct {
	net.Conn
	deadline chan time.Time // for reading; set once, when the link is closed
	closed   chan struct{}
	once     sync.Once
}

// Close implements outbox.Transport.
func (p *pipe) Close() error {
	p.once.Do(func() { close(p.closed) })
	return p.Conn.Close()
}

// SetReadDeadline implements outbox.Transport. Serve reads from the client's channel, not from the connection.
func (p *pipe) SetReadDeadline(t time.Time) error {
	select {
	case p.deadline <- t:
	default:
	}
	return nil
}

func (p *pipe) TryWrite(data []byte) (rest []byte, err error) { return data, nil }

func (p *pipe) WriteBuffers(buffers net.Buffers) error {
	_, err := buffers.WriteTo(p.Conn)
	return err
}

func (p *pipe) Goodbye(code errcode.CloseCode, reason string) []byte {
	return wire.AppendWebSocketFrame(nil, websocket.CloseMessage, websocket.FormatCloseMessage(int(code), reason))
}
