package inbox

import (
	"time"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
)

// connection is the state that ends with one connection.
type connection struct {
	// start is the starting point of unknown conversations on this connection.
	start clientv1.Start
	// crowded means that the connect frame had no room for all conversations. For the rest the gateway begins at their
	// heads.
	crowded bool
	// listed means that the gateway has listed all conversations of the user.
	listed bool
	// strays maps each conversation that is not listed yet to the first event received of it.
	strays map[string]uint64
	// beaten means that a heartbeat was received.
	beaten bool
	// reconnect means that a new connection is needed as soon as the client's positions in its conversations are known.
	reconnect bool
}

// Limits are the gateway's limits that the inbox respects.
type Limits struct {
	// ResumePositions is the maximum number of positions in Connect.resume, AckPositions in Ack.
	ResumePositions, AckPositions int
	// Page is the maximum limit of a read.
	Page uint32
}

// Connected handles the gateway's answer to connect. The limits apply until the next call of Connected.
func (in *Inbox) Connected(connected *clientv1.Connected, limits Limits) {
	in.env.connection, in.attempt, in.env.limits = in.attempt, nil, limits
	in.env.acks.start(in.env.AckDelay, in.env.Wake)
	for _, info := range connected.GetConversations() {
		in.receiveConversation(info, fromConnected)
	}
	if list := connected.GetConversations(); !connected.GetMore() {
		in.listedAll()
	} else if len(list) > 0 {
		in.listAfter(list[len(list)-1].GetConversationId(), 0)
	}
}

// Disconnected ends a connection. It must be called before the queries of that connection end.
func (in *Inbox) Disconnected() {
	in.env.connection = nil
	in.env.acks.stop()
}

// listAfter requests the conversations that Connected had no room for.
//
// The client must not give up after a refusal: without these conversations it cannot find missing events. Therefore it
// retries with growing delays as long as the connection lasts; the next connection starts over.
func (in *Inbox) listAfter(after string, refusals int) {
	connection, wait := in.env.connection, time.Duration(0)
	if refusals > 0 {
		wait = in.env.Backoff(refusals - 1)
	}
	in.env.Server.List(after, wait, func(list *clientv1.Conversations, err error) {
		switch {
		case err != nil && in.env.connection != connection:
		case err != nil:
			in.env.Log.Warn("could not list all conversations", "error", err)
			in.listAfter(after, refusals+1)
		default:
			in.receiveList(list)
		}
	})
}

func (in *Inbox) receiveList(list *clientv1.Conversations) {
	page := list.GetConversations()
	for _, info := range page {
		in.receiveConversation(info, fromList)
	}
	if list.GetMore() && len(page) > 0 {
		in.listAfter(page[len(page)-1].GetConversationId(), 0)
		return
	}
	in.listedAll()
}
