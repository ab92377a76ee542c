package deliverytest

import (
	"sync"

	"github.com/nats-io/nats.go"
)

// Conn keeps the published messages instead of sending them.
type Conn struct {
	// Max is the largest payload that the server would accept.
	Max int64

	mu   sync.Mutex
	sent []*nats.Msg
	fail error
}

// PublishMsg keeps a copy of the message, or returns the error of FailWith.
func (c *Conn) PublishMsg(msg *nats.Msg) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		return c.fail
	}
	c.sent = append(c.sent, &nats.Msg{Subject: msg.Subject, Header: msg.Header, Data: append([]byte(nil), msg.Data...)})
	return nil
}

// MaxPayload is Max.
func (c *Conn) MaxPayload() int64 { return c.Max }

// FailWith makes publishing fail with err; nil ends the failures.
func (c *Conn) FailWith(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail = err
}

// Take removes and returns the published messages.
func (c *Conn) Take() []*nats.Msg {
	c.mu.Lock()
	defer c.mu.Unlock()
	sent := c.sent
	c.sent = nil
	return sent
}
