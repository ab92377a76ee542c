package broker

import (
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

// Publishing may block: if the connection's buffer is full, the NATS client writes to the socket, for up to its write
// deadline. Therefore one goroutine publishes the messages, without the lock, in the order of the queue outgoing. Each
// call is in the queue at most once, so the number of calls limits its length.

// disconnectedPause is how long after a failed publish the sweep tries again.
const disconnectedPause = 250 * time.Millisecond

// publishLocked queues the call's message for publishing. If not_after has passed, the message is not published, and the
// call ends at its deadline.
func (s *Submitter) publishLocked(c *call, now time.Time) {
	if now.After(c.notAfter) {
		return
	}
	s.waitLocked(c, now, s.cfg.PublishTimeout)
	if c.unsent {
		return // already queued; it will be published with the newest id
	}
	delete(s.acks, c.token)
	s.next++
	c.token = s.next
	s.acks[c.token] = c
	c.unsent = true
	s.outgoing = append(s.outgoing, c)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// waitLocked sets the time at which the sweep publishes the call again.
func (s *Submitter) waitLocked(c *call, now time.Time, wait time.Duration) {
	c.tryAt = now.Add(wait/2 + rand.N(wait)/2 + 1)
}

// publish publishes the calls in outgoing until the submitter is closed.
func (s *Submitter) publish() {
	defer close(s.published)
	for {
		select {
		case <-s.stop:
			return
		case <-s.wake:
		}
		for c, message := s.takeOutgoing(); message != nil; c, message = s.takeOutgoing() {
			if err := s.nc.PublishMsg(message); err != nil {
				s.mu.Lock()
				s.waitLocked(c, time.Now(), disconnectedPause)
				s.mu.Unlock()
			}
			select {
			case <-s.stop:
				return
			default:
			}
		}
	}
}

// takeOutgoing returns the next call to publish, and its message. It skips calls that were answered or given up
// meanwhile.
func (s *Submitter) takeOutgoing() (*call, *nats.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for len(s.outgoing) > 0 {
		c := s.outgoing[0]
		s.outgoing[0] = nil
		s.outgoing = s.outgoing[1:]
		c.unsent = false
		if c.token == 0 || now.After(c.notAfter) {
			continue
		}
		s.waitLocked(c, now, s.cfg.PublishTimeout)
		return c, &nats.Msg{
			Subject: c.message.Subject, Header: c.message.Header, Data: c.message.Data,
			Reply: s.replies + strconv.FormatUint(c.token, 10),
		}
	}
	s.outgoing = nil // also releases the array
	return nil, nil
}
