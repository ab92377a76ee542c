// Package link is what a session knows of the transport below it. A Link takes ready-made messages and closes with a code; a
// Receiver takes what the client sends. Each transport is a sibling package that passes the suite of linktest; the queue that
// all of them share is outbox. A link never decodes a frame and never knows users or conversations.
package link

import (
	"github.com/runnelhq/runnel/pkg/errcode"

	"github.com/runnelhq/runnel/services/gateway/flight"
	"github.com/runnelhq/runnel/services/gateway/wire"
)

// Link is one transport instance of a device. It may be used by several goroutines.
//
//	live ──Close──▶ closing (what was begun is written, then the close code) ──▶ ended
//	  └────────────── the transport fails, or the client closes ──────────────────▲
type Link interface {
	// Queue adds a ready-made message without writing it. It reports whether it is the first: then the caller calls Flush when
	// it has no more for this link. Otherwise another caller does, or the link is writing already.
	Queue(message []byte) (first bool)
	// QueueEvents is Queue for a message with events, whose fate is recorded. It returns the mark that the recorder knows the
	// message by, 0 when the link is closing and the message was dropped.
	QueueEvents(message []byte, followed []*flight.Delivery) (mark uint32, first bool)
	// Flush writes what is queued, without waiting for a client that is slow to read.
	Flush()
	// WaitForRoom waits until the queue is less than half full, so that a long answer never makes a client slow. It returns
	// false when the link is closing.
	WaitForRoom() bool
	// Close closes the link with a code. Later calls change nothing and return false.
	Close(code errcode.CloseCode, reason string) bool
	// Closing reports whether the link is being closed or has ended.
	Closing() bool
	// Done is closed when the link has ended.
	Done() <-chan struct{}
	// Describe tells operators about the link.
	Describe() Description
	// Serve reads for a receiver. It is called once, and may return before the link has ended: a goroutine of the transport goes
	// on reading then, which the gateway waits for when it stops. Nothing is handed over once the link is Closing, but reading
	// goes on until the client has answered the close or the read deadline has passed. Then Ended is called, once and last.
	// A message above the transport's limits is not handed over: the link is closed with errcode.CloseTooLarge. Before Opened,
	// when anybody may be the client, the limit is protocol.MaxConnectBytes.
	Serve(receiver Receiver)
}

// Description is what operators are told about a link.
type Description struct {
	// Encoding is that of answers and pushes; a session may use another one of the same framing for events.
	Encoding wire.Encoding
	// Remote is the client's address without port.
	Remote string
	// QueuedBytes wait to be written.
	QueuedBytes int
}

// Receiver is told what happens on a link, by one goroutine at a time.
type Receiver interface {
	// Receive handles one message, which is valid during the call only.
	Receive(message []byte)
	// AllowControl counts a control message of the transport, such as a ping, and reports whether to answer it.
	AllowControl() bool
	// Opened reports whether the client is connected: a link may then move to a goroutine that costs less to keep.
	Opened() bool
	// Ended is called once, last, with the code that the link was closed with; 0 when it was lost.
	Ended(code errcode.CloseCode)
}
