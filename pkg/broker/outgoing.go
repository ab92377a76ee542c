package broker

import (
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

// Publishing may block: when the buffer of the connection is full, the client of NATS writes to the socket, for as long as its
// write deadline. So messages are published by one goroutine, without the lock, in the order of the queue outgoing. The queue is
// bounded by the number of calls, because each is in it at most once.

// disconnectedPause is how long after a failed publish the sweep tries again.
const disconnectedPause = 250 * time.Millisecond

// publishLocked has the call's message published, unless not_after has passed; then the call ends at its deadline.
func (s *Submitter) publishLocked(c *call, now time.Time) {
	if now.After(c.notAfter) {
		return
	}
	s.waitLocked(c, now, s.cfg.PublishTimeout)
	if c.unsent {
		return // it has a token, and is published with the newest id
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

// waitLocked sets when the sweep publishes again.
func (s *Submitter) waitLocked(c *call, now time.Time, wait time.Duration) {
	c.tryAt = now.Add(wait/2 + rand.N(wait)/2 + 1)
}

// publish publishes what is in outgoing, until the submitter is closed.
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

// takeOutgoing returns the next call to publish, and its message. It passes over calls that were answered or given up meanwhile.
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
	s.outgoing = nil // and the memory that it held
	return nil, nil
}
