package load

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// TextBytes is the size of every message's text.
const TextBytes = 128

// Client is one device of one user, in one conversation (NewClient) or in all conversations of the user (NewMember).
// Connect it with Loop.Connect. After it was closed it may be connected again, and then resumes.
//
//	closed ──Connect──▶ dialing ──socket open──▶ upgrading ──101──▶ connecting ──connected──▶ open
//	   ▲                                                                                       │
//	   └──────────────────────── Close, or the server closed ──────────────────────────────────┘
type Client struct {
	// User is the client's user. Conversation is the client's conversation; it is empty for a client in several
	// conversations.
	User, Conversation string
	// Index is free for use by the client's owner.
	Index int

	token      string
	noReceipts bool

	// Used by the loop's goroutine only.
	state       state
	addr        string
	carry       []byte // the beginning of an incomplete frame
	known       bool   // seq is known, so the next connection resumes
	seq         uint64 // every event up to this one has been received
	places      places // replaces seq for a client in several conversations
	ackWaiting  bool
	connectedAt int64
	closedAs    string // the server's close code

	// mu guards the sending half of the socket, because messages are also submitted from other goroutines than the
	// loop's.
	mu      sync.Mutex
	fd      int
	open    bool // authenticated: messages may be sent
	written uint64
	payload []byte
	framed  []byte
	mask    [4]byte
	random  rand.PCG
}

type state uint8

const (
	stateClosed state = iota
	stateDialing
	stateUpgrading
	stateConnecting
	stateOpen
)

// NewClient makes a client that is not connected. If receipts is false, it asks the server not to push receipts.
func NewClient(user, token, conversation string, receipts bool) *Client {
	c := &Client{User: user, Conversation: conversation, token: token, noReceipts: !receipts, fd: -1}
	c.random.Seed(rand.Uint64(), rand.Uint64())
	copy(c.mask[:], strconv.AppendUint(nil, rand.Uint64()|1<<63, 36))
	return c
}

// Seq returns the seq of the newest event received. Call it on the loop (Loop.Do), or when the client is closed.
func (c *Client) Seq() uint64 { return c.seq }

// ConnectedAt returns when the last connection was authenticated. Call it on the loop.
func (c *Client) ConnectedAt() int64 { return c.connectedAt }

// Open reports whether the client is connected. Call it on the loop.
func (c *Client) Open() bool { return c.state == stateOpen }

// StartAt makes the client resume after seq at its next connection. The client must be closed.
func (c *Client) StartAt(seq uint64) { c.seq, c.known = seq, true }

// ErrClosed means that the client was not connected.
var ErrClosed = errors.New("not connected")

var padding = func() []byte {
	const words = " the quick brown fox jumps over the lazy dog and runs on to the next hill where it rests for a while, then goes home again to sleep"
	return []byte(words)
}()

// Submit sends a message to the client's conversation. now is the time of sending. It becomes the request id and the
// digits at the beginning of the text, so each message of a client needs a different now.
func (c *Client) Submit(now int64) error { return c.SubmitTo(c.Conversation, now) }

// SubmitTo sends a message as Submit does, to any conversation of the client's user.
func (c *Client) SubmitTo(conversation string, now int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.open {
		return ErrClosed
	}
	p := c.payload[:0]
	p = append(p, `{"id":"`...)
	p = strconv.AppendInt(p, now, 10)
	p = append(p, `","submit":{"conversationId":"`...)
	p = append(p, conversation...)
	p = append(p, `","commandId":"`...)
	p = c.appendCommandID(p)
	p = append(p, `","body":{"message":{"text":"`...)
	begin := len(p)
	p = strconv.AppendInt(p, now, 10)
	p = append(p, padding[:TextBytes-(len(p)-begin)]...)
	p = append(p, `"}}}}`...)
	c.payload = p
	return c.writeLocked(opText, c.payload)
}

// appendCommandID appends a new UUIDv7.
func (c *Client) appendCommandID(dst []byte) []byte {
	var id [16]byte
	ms := uint64(time.Now().UnixMilli())
	high, low := c.random.Uint64(), c.random.Uint64()
	for i := range 6 {
		id[i] = byte(ms >> (8 * (5 - i)))
	}
	id[6], id[7] = 0x70|byte(high>>8)&0xf, byte(high)
	for i := range 8 {
		id[8+i] = byte(low >> (8 * i))
	}
	id[8] = 0x80 | id[8]&0x3f
	for i, b := range id {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			dst = append(dst, '-')
		}
		dst = hex.AppendEncode(dst, []byte{b})
	}
	return dst
}

// sendConnect authenticates the client, and reports its position.
func (c *Client) sendConnect() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.payload[:0]
	p = append(p, `{"id":"1","connect":{"token":"`...)
	p = append(p, c.token...)
	p = append(p, `","deviceId":"bench"`...)
	switch {
	case c.places != nil:
		p = c.places.appendResume(p)
	case c.known:
		p = fmt.Appendf(p, `,"resume":[{"conversationId":"%s","seq":"%d"}]`, c.Conversation, c.seq)
	}
	if c.noReceipts {
		p = append(p, `,"noReceipts":true`...)
	}
	p = append(p, `}}`...)
	c.payload = p
	return c.writeLocked(opText, c.payload)
}

// sendAck acknowledges all received events.
func (c *Client) sendAck() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.payload[:0]
	p = append(p, `{"ack":{"positions":[`...)
	if c.places != nil {
		p = c.places.appendAcks(p)
	} else {
		p = appendAck(p, c.Conversation, c.seq)
	}
	p = append(p, `]}}`...)
	c.payload = p
	return c.writeLocked(opText, c.payload)
}

func (c *Client) sendPong() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writeLocked(opText, []byte(`{"pong":{}}`))
}

// Written counts the bytes of all frames that were sent.
func (c *Client) Written() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.written
}

// setOpen allows or forbids Submit.
func (c *Client) setOpen(open bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open = open
}

// writeLocked writes one frame. If the socket does not accept the whole frame, the server has stopped reading with some
// megabytes in flight, which does not happen in a healthy run.
func (c *Client) writeLocked(opcode byte, payload []byte) error {
	if c.fd < 0 {
		return ErrClosed
	}
	c.framed = appendMasked(c.framed[:0], opcode, c.mask, payload)
	n, err := syscall.Write(c.fd, c.framed)
	c.written += uint64(max(n, 0))
	switch {
	case err != nil:
		return fmt.Errorf("write to the server: %w", err)
	case n < len(c.framed):
		return errors.New("write to the server: the socket is full")
	}
	return nil
}
