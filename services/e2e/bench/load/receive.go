//go:build linux

package load

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// take handles bytes that were read, and returns the beginning of an incomplete frame at their end.
func (l *Loop) take(c *Client, data []byte, now int64) (rest []byte, err error) {
	if c.state == stateUpgrading {
		var whole bool
		if data, whole, err = upgraded(data); err != nil || !whole {
			return data, err
		}
		c.state = stateConnecting
		if err := c.sendConnect(); err != nil {
			return nil, err
		}
	}
	handler := *l.handler.Load()
	for {
		opcode, payload, rest, whole, err := nextFrame(data)
		if err != nil || !whole {
			return rest, err
		}
		data = rest
		switch opcode {
		case opText:
			if err := l.lines(c, payload, handler, now); err != nil {
				return nil, err
			}
		case opClose:
			if len(payload) >= 2 {
				c.closedAs = fmt.Sprintf("%d %s", binary.BigEndian.Uint16(payload), payload[2:])
			}
			l.drop(c, "closed") // clients close the socket; the server would wait for it
		case opPing:
			c.mu.Lock()
			err := c.writeLocked(opPong, payload)
			c.mu.Unlock()
			if err != nil {
				return nil, err
			}
		case opPong:
		default:
			return nil, fmt.Errorf("a WebSocket frame of type %d", opcode)
		}
		if c.state == stateClosed {
			return nil, nil // the handler closed the client
		}
	}
}

// lines handles the lines of one WebSocket message.
func (l *Loop) lines(c *Client, payload []byte, handler Handler, now int64) error {
	for len(payload) > 0 {
		line := payload
		if end := bytes.IndexByte(payload, '\n'); end >= 0 {
			line, payload = payload[:end], payload[end+1:]
		} else {
			payload = nil
		}
		what, id, body := classify(line)
		switch what {
		case kindEvent:
			if err := l.event(c, body, handler, now); err != nil {
				return err
			}
		case kindOutcome:
			seq := seqOf(body)
			if seq == 0 {
				l.fail(fmt.Errorf("%s: a message was refused: %s", c.User, line))
			}
			handler.Outcome(c, int64(id), seq, now)
		case kindError:
			l.fail(fmt.Errorf("%s: the server answers: %s", c.User, line))
			if c.state == stateOpen {
				handler.Outcome(c, int64(id), 0, now)
			}
		case kindConnected:
			switch {
			case c.places != nil:
				c.places.start(body)
			case !c.known:
				c.seq, c.known = headOf(body), true
			}
			c.state, c.connectedAt = stateOpen, now
			c.setOpen(true)
			handler.Connected(c, now)
		case kindHeartbeat:
			if err := c.sendPong(); err != nil {
				return err
			}
		case kindHidden, kindDetached:
			return fmt.Errorf("the server says that the user is no member: %s", line)
		case kindReceipt:
			if receipts, ok := handler.(ReceiptHandler); ok {
				seq, members := deliveredOf(body)
				receipts.Receipt(c, seq, members)
			}
		case kindGoAway, kindOther:
		}
	}
	return nil
}

func (l *Loop) event(c *Client, body []byte, handler Handler, now int64) error {
	conversation, seq, ok := position(body)
	if !ok || (c.places == nil && string(conversation) != c.Conversation) {
		return fmt.Errorf("an event of another conversation, or of another form: %.120s", body)
	}
	last := &c.seq
	if c.places != nil {
		last = c.places.of(conversation)
	}
	if seq <= *last {
		l.repeats.Add(1)
		return nil
	}
	if seq != *last+1 {
		return fmt.Errorf("event %d came after event %d: the stream has a hole", seq, *last)
	}
	*last = seq
	if !c.ackWaiting {
		c.ackWaiting = true
		l.acks = append(l.acks, dueAck{c, now + int64(ackDelay)})
	}
	handler.Event(c, seq, body, now)
	return nil
}
