package client

import (
	"time"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
)

const (
	// Positions in one acknowledgement: fewer than protocol.MaxAckPositions, for a gateway that takes small frames only.
	maxPositions = 200
	// Events that are acknowledged without waiting any longer.
	ackAtOnce = 64
)

// owe makes an acknowledgement due.
func (c *Client) owe(conv *stream) {
	if !conv.owed {
		conv.owed = true
		c.unacked = append(c.unacked, conv)
	}
	c.unackedEvents++
	c.session.remindAck(c.cfg.AckDelay, c.unackedEvents >= ackAtOnce)
}

// handed notes that the program has been told of everything up to seq.
func (c *Client) handed(conv *stream, branch int, seq uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if branch == conv.branch {
		conv.delivered = seq
		c.owe(conv)
	}
	c.pump()
}

// remindAck makes the writer send acknowledgements after the delay, or now.
func (s *session) remindAck(delay time.Duration, now bool) {
	if s == nil {
		return
	}
	if now {
		delay = 0
	}
	if due := time.Now().Add(max(delay, 0)); s.ackAt.IsZero() || due.Before(s.ackAt) {
		s.ackAt = due
		s.poke()
	}
}

// takeAcks makes an acknowledgement of what is due.
func (c *Client) takeAcks() *clientv1.Ack {
	n := min(len(c.unacked), maxPositions)
	ack := &clientv1.Ack{Positions: make([]*clientv1.AckPosition, 0, n)}
	for _, conv := range c.unacked[:n] {
		conv.owed = false
		if conv.gone {
			continue
		}
		position := &clientv1.AckPosition{ConversationId: conv.id, Delivered: conv.delivered}
		if conv.readOwed {
			conv.readOwed, position.Read = false, conv.read
		}
		ack.Positions = append(ack.Positions, position)
	}
	if c.unacked = c.unacked[n:]; len(c.unacked) == 0 {
		c.unacked, c.unackedEvents = nil, 0
	}
	c.stats.Acks++
	return ack
}

// MarkRead says that the user has read a conversation up to seq. It goes out with the next acknowledgement, and again after a
// lost connection. A conversation that the client does not know is passed over.
func (c *Client) MarkRead(conversationID string, seq uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	conv := c.conversations[conversationID]
	if conv == nil || min(seq, conv.last) <= conv.read {
		return
	}
	conv.read, conv.readOwed = min(seq, conv.last), true
	c.owe(conv)
}
