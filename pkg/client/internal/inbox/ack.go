package inbox

import (
	"time"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
)

const (
	// Maximum number of positions in one acknowledgement, if the gateway allows as many. It is below
	// protocol.MaxAckPositions, for gateways that accept only small frames.
	maxPositions = 200
	// Number of events at which an acknowledgement is sent without further delay.
	ackAtOnce = 64
)

// acks collects the conversations that are to be acknowledged. Without a connection they wait for the next one.
type acks struct {
	waiting []*Conversation
	// events counts the calls of add since the last complete acknowledgement.
	events int
	// wake is called when due becomes earlier; nil without a connection.
	wake func()
	// due is the time of the next acknowledgement; zero if none is due.
	due time.Time
}

// start begins a connection.
func (a *acks) start(delay time.Duration, wake func()) {
	a.wake = wake
	if len(a.waiting) > 0 {
		a.remind(delay)
	}
}

// stop ends a connection.
func (a *acks) stop() { a.wake, a.due = nil, time.Time{} }

func (a *acks) add(conv *Conversation, delay time.Duration) {
	if !conv.unacked {
		conv.unacked = true
		a.waiting = append(a.waiting, conv)
	}
	if a.events++; a.events >= ackAtOnce {
		delay = 0
	}
	a.remind(delay)
}

// remind makes the acknowledgement due no later than after a delay.
func (a *acks) remind(delay time.Duration) {
	if a.wake == nil {
		return
	}
	if due := time.Now().Add(max(delay, 0)); a.due.IsZero() || due.Before(a.due) {
		a.due = due
		a.wake()
	}
}

// take returns the next acknowledgement, with at most this many positions.
func (a *acks) take(most int) *clientv1.Ack {
	n := min(len(a.waiting), most)
	ack := &clientv1.Ack{Positions: make([]*clientv1.AckPosition, 0, n)}
	for _, conv := range a.waiting[:n] {
		conv.unacked = false
		if conv.gone {
			continue
		}
		position := &clientv1.AckPosition{ConversationId: conv.ID(), Delivered: conv.delivered}
		if conv.unsentRead {
			conv.unsentRead, position.Read = false, conv.read
		}
		ack.Positions = append(ack.Positions, position)
	}
	if a.waiting = a.waiting[n:]; len(a.waiting) == 0 {
		a.waiting, a.events, a.due = nil, 0, time.Time{}
	}
	return ack
}

// acknowledge makes an acknowledgement of the conversation due.
func (conv *Conversation) acknowledge() { conv.env.acks.add(conv, conv.env.AckDelay) }

// AckDue returns when to call TakeAck; zero for never.
func (in *Inbox) AckDue() time.Time { return in.env.acks.due }

// TakeAck returns the next acknowledgement. If more conversations are to be acknowledged, AckDue stays unchanged.
func (in *Inbox) TakeAck() *clientv1.Ack {
	in.env.stats.Acks++
	return in.env.acks.take(min(maxPositions, in.env.limits.AckPositions))
}

// MarkRead records that the user has read a conversation up to seq. The position is sent with the next acknowledgement,
// and again after a lost connection. A conversation that the client does not know is ignored.
func (in *Inbox) MarkRead(conversationID string, seq uint64) {
	conv := in.conversations[conversationID]
	if conv == nil || min(seq, conv.Last()) <= conv.read {
		return
	}
	conv.read, conv.unsentRead = min(seq, conv.Last()), true
	conv.acknowledge()
}
