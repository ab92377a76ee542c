package room

import (
	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/gateway/flight"
	"github.com/runnelhq/runnel/services/gateway/wire"
)

// Listener describes one session to rooms. Its fields do not change once it has a subscription.
type Listener struct {
	User         ids.User
	ConnectionID ids.Connection
	// Number identifies the connection in the recorder.
	Number uint32
	// Events is the encoding of events, Answers the encoding of all other frames.
	Events, Answers wire.Encoding
	// Receipts reports whether the client wants receipts.
	Receipts bool

	Sender     Sender
	Subscriber Subscriber
}

// Sender accepts encoded messages for one client; link.Link implements it and documents the methods.
type Sender interface {
	Queue(message []byte) (first bool)
	QueueEvents(message []byte, followed []*flight.Delivery) (mark uint32, first bool)
	Flush()
	Close(code errcode.CloseCode, reason string) bool
}

// Subscriber is notified of changes to its subscriptions. It is called with the room's lock held: it must not call a room.
type Subscriber interface {
	// Behind asks the session to call FillOnce until FillOnce returns false.
	Behind(s *Subscription)
	// Detached reports that the membership ended: last is the last event that this user may read. The subscription has left
	// its room.
	Detached(s *Subscription, conversationID ids.Conversation, last ids.Seq)
	// Forked reports that the client is on another branch of the log: seq is its position, head the newest event. The subscription
	// has left its room.
	Forked(s *Subscription, conversationID ids.Conversation, head, seq ids.Seq)
}
