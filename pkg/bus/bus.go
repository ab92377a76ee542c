// Package bus carries messages between services that are never stored: live events, outcomes, acknowledgements, notices. A
// message may be lost, but the bus never repeats it. Messages of one publisher to one subscription keep their order. Parts that
// need a message detect its loss by other means: heads, heartbeats, repeated requests.
//
//	OverNATS    between processes: core NATS
//	InProcess   within one process: a function call or a channel, without encoding, sockets or goroutines
//
// Both pass the conformance suite in bustest. Callers do not depend on the implementation. Commands are never sent
// over a bus: they must not be lost, so they are sent through JetStream.
package bus

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go"
)

// Bus delivers a published message to all present subscriptions of its subject. Subjects are exact; there are no wildcards. It is
// safe for concurrent use.
type Bus interface {
	// PublishMsg sends a message. It copies the data before it returns; the header must not be changed afterwards. An
	// error means that the message was not sent.
	PublishMsg(msg *nats.Msg) error
	// Subscribe passes the messages of a subject to a function. The function must not block. It must not change the
	// message, because other subscriptions share it. Calls for messages of different publishers may run concurrently.
	Subscribe(subject string, handle nats.MsgHandler) (Subscription, error)
	// ChanSubscribe sends the messages of a subject to a channel. A message is lost if the channel is full.
	ChanSubscribe(subject string, to chan *nats.Msg) (Subscription, error)
	// FlushWithContext returns when all messages published before are sent, and all subscriptions made before are in
	// effect, so that they receive all later messages. ctx must have a deadline.
	FlushWithContext(ctx context.Context) error
	// MaxPayload returns the maximum size of a message's data, in bytes. PublishMsg refuses larger messages.
	MaxPayload() int64
}

// Subscription is one subscription of a bus.
type Subscription interface {
	// Unsubscribe ends the subscription. A message that is being delivered may still arrive. It fails only if the bus is
	// closed, which also ends the subscription.
	Unsubscribe() error
}

// Limits of the messages that wait for one function of OverNATS. Above them the NATS client drops messages.
const (
	pendingMessages = 1 << 20
	pendingBytes    = 256 << 20
)

// OverNATS is a bus over a connection to NATS. The caller closes the connection. While the connection is lost, PublishMsg
// returns an error.
type OverNATS struct{ *nats.Conn }

var _ Bus = OverNATS{}

// Subscribe implements Bus.
func (o OverNATS) Subscribe(subject string, handle nats.MsgHandler) (Subscription, error) {
	sub, err := o.Conn.Subscribe(subject, handle)
	if err != nil {
		return nil, fmt.Errorf("subscribe to %s: %w", subject, err)
	}
	if err := sub.SetPendingLimits(pendingMessages, pendingBytes); err != nil {
		_ = sub.Unsubscribe()
		return nil, fmt.Errorf("set the limits of %s: %w", subject, err)
	}
	return sub, nil
}

// ChanSubscribe implements Bus.
func (o OverNATS) ChanSubscribe(subject string, to chan *nats.Msg) (Subscription, error) {
	sub, err := o.Conn.ChanSubscribe(subject, to)
	if err != nil {
		return nil, fmt.Errorf("subscribe to %s: %w", subject, err)
	}
	return sub, nil
}
