package inbox

import (
	"errors"

	"github.com/runnelhq/runnel/pkg/client/internal/stream"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

var errNoRoom = errors.New("no room for more events")

// way is the way in which an event was received.
type way int

const (
	pushed way = iota
	read
)

// receiveEvent handles an event that the gateway pushed.
func (in *Inbox) receiveEvent(came stream.Arrival) {
	event := came.Event
	conv := in.conversations[event.GetConversationId()]
	switch seq := event.GetSeq(); {
	case conv == nil:
		in.receiveStray(event)
	case conv.broken:
	case conv.suspicion != nil:
		conv.Announce(seq)
	case seq <= conv.Last():
		conv.receiveRepeat(event)
	case seq == conv.Last()+1:
		conv.proceed(seq, conv.handEvent(came), pushed)
	default:
		conv.noteGap(seq)
		if in.env.Program.HasRoom() {
			conv.Hold(came)
		}
	}
}

// receiveRepeat handles an event at or below Last.
func (conv *Conversation) receiveRepeat(event *clientv1.Event) {
	if conv.Contradicts(event) {
		conv.suspect(nil)
		return
	}
	conv.env.stats.RepeatsDropped++
	if event.GetSeq() <= conv.delivered {
		// The gateway does not know yet that the client has the event.
		conv.acknowledge()
	}
}

// receiveStray handles an event of a conversation that the client does not know. If the conversation is listed later, the
// event is read from history.
func (in *Inbox) receiveStray(event *clientv1.Event) {
	in.env.stats.StraysDropped++
	if in.listed {
		return
	}
	if in.env.connection.strays == nil {
		in.env.connection.strays = map[string]uint64{}
	}
	if _, known := in.env.connection.strays[event.GetConversationId()]; !known {
		in.env.connection.strays[event.GetConversationId()] = event.GetSeq()
	}
}

// receiveHidden handles a stretch that the user may not see.
func (in *Inbox) receiveHidden(hidden *clientv1.Hidden) {
	conv := in.conversations[hidden.GetConversationId()]
	switch {
	case conv == nil || conv.broken || hidden.GetLast() <= conv.Last():
	case conv.suspicion != nil:
		conv.Announce(hidden.GetLast())
	case hidden.GetFirst() <= conv.Last()+1:
		conv.handHidden(hidden.GetLast())
		conv.proceed(conv.Last(), nil, pushed)
	default:
		conv.noteGap(hidden.GetLast())
	}
}

// receiveReceipt handles a receipt, unless a newer one was received.
func (in *Inbox) receiveReceipt(receipt *conversationv1.Receipt) {
	conv := in.conversations[receipt.GetConversationId()]
	if conv == nil || receipt.GetVersion() <= conv.receipt {
		return
	}
	conv.receipt = receipt.GetVersion()
	in.env.Program.Receipt(receipt)
}

// handEvent hands the event after Last to the program, if the program has room and the event verifies.
func (conv *Conversation) handEvent(came stream.Arrival) error {
	if !conv.env.Program.HasRoom() {
		conv.env.stats.EventsPutOff++
		return errNoRoom
	}
	content, err := conv.Take(conv.env.Checker, came.Event)
	if err != nil {
		return err
	}
	conv.doubted = false
	conv.env.stats.Events++
	conv.env.Program.Event(conv, conv.Branch(), came, content)
	return nil
}

// handHidden hands a hidden stretch to the program. The stretch begins directly after Last, or earlier.
func (conv *Conversation) handHidden(to uint64) {
	hidden := conv.Skip(to)
	conv.env.stats.Hidden++
	conv.env.Program.Hidden(conv, conv.Branch(), hidden)
}

// proceed decides what follows an attempt to take the event seq: taking held events, reading a page, or stopping.
func (conv *Conversation) proceed(seq uint64, err error, came way) {
	for err == nil {
		next, held := conv.NextHeld()
		if !held {
			break
		}
		came, seq = pushed, next.Event.GetSeq()
		err = conv.handEvent(next)
	}
	switch {
	case errors.Is(err, errNoRoom):
		conv.DropHeld()
		conv.fill(seq)
	case err != nil:
		conv.doubt(seq, err, came)
	case !conv.Behind():
		conv.emptyPages = 0
		conv.leaveIf(conv.Last() >= conv.leaveAt)
	}
}

// doubt handles an event that does not verify. It reads the event from history; an event that came from history is read a
// second time. If it still does not verify, either the server is on another branch of the log, or the log contradicts
// itself.
func (conv *Conversation) doubt(seq uint64, err error, came way) {
	conv.env.stats.ChainBreaks++
	conv.DropHeld()
	if !conv.doubted || came == pushed {
		conv.doubted = true
		conv.fill(seq)
		return
	}
	conv.suspect(err)
}

// breakOff stops a conversation whose log contradicts itself.
func (conv *Conversation) breakOff(err error) {
	conv.broken = true
	conv.env.Log.Error("the log of a conversation does not verify", "error", err)
	conv.env.Program.Broken(err)
	conv.leaveIf(true)
}
