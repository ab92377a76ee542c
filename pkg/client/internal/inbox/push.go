package inbox

import (
	"errors"

	"github.com/runnelhq/runnel/pkg/client/internal/stream"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

var errNoRoom = errors.New("no room for more events")

// way is how an event was received.
type way int

const (
	pushed way = iota
	read
)

// receiveEvent takes an event that the gateway pushed.
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
		in.receiveRepeat(conv, event)
	case seq == conv.Last()+1:
		in.proceed(conv, seq, in.take(conv, came), pushed)
	default:
		in.noteGap(conv, seq)
		if in.cfg.Program.HasRoom() {
			conv.Hold(came)
		}
	}
}

// receiveRepeat takes an event at or below Last.
func (in *Inbox) receiveRepeat(conv *Conversation, event *clientv1.Event) {
	if conv.Contradicts(event) {
		in.suspect(conv, nil)
		return
	}
	in.stats.RepeatsDropped++
	if event.GetSeq() <= conv.delivered {
		// The gateway does not know that it was received.
		in.acknowledge(conv)
	}
}

// receiveStray takes an event of a conversation that the client does not know. It may be one that is about to be listed: then the
// event will be read from there.
func (in *Inbox) receiveStray(event *clientv1.Event) {
	in.stats.StraysDropped++
	if in.listed {
		return
	}
	if in.connection.strays == nil {
		in.connection.strays = map[string]uint64{}
	}
	if _, known := in.connection.strays[event.GetConversationId()]; !known {
		in.connection.strays[event.GetConversationId()] = event.GetSeq()
	}
}

// receiveHidden takes a stretch that the user may not see.
func (in *Inbox) receiveHidden(hidden *clientv1.Hidden) {
	conv := in.conversations[hidden.GetConversationId()]
	switch {
	case conv == nil || conv.broken || hidden.GetLast() <= conv.Last():
	case conv.suspicion != nil:
		conv.Announce(hidden.GetLast())
	case hidden.GetFirst() <= conv.Last()+1:
		in.skip(conv, hidden.GetLast())
		in.proceed(conv, conv.Last(), nil, pushed)
	default:
		in.noteGap(conv, hidden.GetLast())
	}
}

// receiveReceipt takes a receipt, unless a newer one was taken.
func (in *Inbox) receiveReceipt(receipt *conversationv1.Receipt) {
	conv := in.conversations[receipt.GetConversationId()]
	if conv == nil || receipt.GetVersion() <= conv.receipt {
		return
	}
	conv.receipt = receipt.GetVersion()
	in.cfg.Program.Receipt(receipt)
}

// take hands the event after Last to the program, if there is room and it verifies.
func (in *Inbox) take(conv *Conversation, came stream.Arrival) error {
	if !in.cfg.Program.HasRoom() {
		in.stats.EventsPutOff++
		return errNoRoom
	}
	content, err := conv.Take(in.cfg.Checker, came.Event)
	if err != nil {
		return err
	}
	conv.doubted = false
	in.stats.Events++
	in.cfg.Program.Event(conv, conv.Branch(), came, content)
	return nil
}

// skip hands a hidden stretch to the program that begins after Last or before.
func (in *Inbox) skip(conv *Conversation, to uint64) {
	hidden := conv.Skip(to)
	in.stats.Hidden++
	in.cfg.Program.Hidden(conv, conv.Branch(), hidden)
}

// proceed goes on after an attempt to take the event seq: with the held events, with a page, or not at all.
func (in *Inbox) proceed(conv *Conversation, seq uint64, err error, came way) {
	for err == nil {
		next, held := conv.NextHeld()
		if !held {
			break
		}
		came, seq = pushed, next.Event.GetSeq()
		err = in.take(conv, next)
	}
	switch {
	case errors.Is(err, errNoRoom):
		conv.DropHeld()
		in.fill(conv, seq)
	case err != nil:
		in.doubt(conv, seq, err, came)
	case !conv.Behind():
		conv.stuck = 0
		in.leaveIf(conv, conv.Last() >= conv.leaveAt)
	}
}

// doubt reacts to an event that does not verify: it is read from history, once more if it was. If that does not help, either the
// server is on another branch of the log, or the conversation ends here.
func (in *Inbox) doubt(conv *Conversation, seq uint64, err error, came way) {
	in.stats.ChainBreaks++
	conv.DropHeld()
	if !conv.doubted || came == pushed {
		conv.doubted = true
		in.fill(conv, seq)
		return
	}
	in.suspect(conv, err)
}

// breakOff ends a conversation whose log contradicts itself.
func (in *Inbox) breakOff(conv *Conversation, err error) {
	conv.broken = true
	in.cfg.Log.Error("the log of a conversation contradicts itself", "error", err)
	in.cfg.Program.Broken(err)
	in.leaveIf(conv, true)
}
