package client

import (
	"time"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
)

// request is one question to the gateway, kept and asked again, on this connection and those after it, until there is an
// answer that counts:
//
//	          sent             answered
//	ready ───────────▶ open ───────────▶ finished
//	  ▲  ▲               │  │
//	  │  └── no answer ──┘  │ temporary error
//	  │      in time        ▼
//	  └──── time is up ── waiting
//
// Every request that is not finished becomes ready with a new connection, except that one that waits still waits, and that
// one of a single connection (once) ends with it.
type request struct {
	// frame is what is asked; its id is that of the last time it was sent.
	frame *clientv1.ClientFrame
	// aim, if set, brings the frame up to date before it is sent.
	aim func()
	// ticket is the command that is submitted, nil for other requests.
	ticket *Ticket
	// done is called once, with the lock held.
	done func(answer *clientv1.ServerFrame, err error)
	once bool

	ready bool
	open  bool
	// due is until when an open request has time to be answered, and a waiting one waits.
	due   time.Time
	tries int
}

// ask begins a request. The lock is held, as in all that follows.
func (c *Client) ask(r *request) {
	c.requests[r] = struct{}{}
	c.makeReady(r)
}

// askAfter begins a request that waits first.
func (c *Client) askAfter(r *request, wait time.Duration) {
	c.requests[r] = struct{}{}
	r.due = time.Now().Add(wait)
	c.session.remind(r.due)
}

func (c *Client) makeReady(r *request) {
	if r.ready {
		return
	}
	if r.open && r.ticket != nil {
		r.ticket.unconfirmed = true // it was sent and there was no answer
	}
	r.ready, r.open = true, false
	c.ready = append(c.ready, r)
	if c.session != nil {
		c.session.poke()
	}
}

// finish ends a request with an answer or an error.
func (c *Client) finish(r *request, answer *clientv1.ServerFrame, err error) {
	if _, current := c.requests[r]; !current {
		return
	}
	delete(c.requests, r)
	if r.open && c.session != nil {
		delete(c.session.open, r.frame.GetId())
	}
	r.ready, r.open = false, false
	r.done(answer, err)
}

// sent notes that a request is under way.
func (c *Client) sent(s *session, r *request) {
	if r.tries++; r.tries > 1 {
		c.stats.Retries++
		r.ticket.happened("sent again")
	} else {
		r.ticket.happened("sent")
	}
	r.ready, r.open = false, true
	r.due = time.Now().Add(c.cfg.RequestTimeout)
	s.open[r.frame.GetId()] = r
	s.remind(r.due)
}

// answered takes the answer to a request.
func (c *Client) answered(s *session, f *clientv1.ServerFrame) {
	r := s.open[f.GetId()]
	if r == nil {
		// It came too late: the request has been sent again since, or nobody waits for it any more.
		return
	}
	delete(s.open, f.GetId())
	r.open = false
	failure := f.GetError()
	if failure == nil {
		failure = f.GetOutcome().GetError()
	}
	if failure == nil {
		c.finish(r, f, nil)
		return
	}
	refusal := refused(failure)
	refusal.TraceID = traceID(parse(f.GetTraceparent()))
	again := refusal.temporary()
	if r.ticket != nil {
		again = r.ticket.refused(f.GetOutcome() != nil, refusal) || again
	}
	if !again {
		c.finish(r, f, refusal)
		return
	}
	c.tryLater(s, r, refusal.RetryAfter, refusal)
}

// tryLater makes a request wait before it is sent again. A command that gateways refused to take for too long ends.
func (c *Client) tryLater(s *session, r *request, atLeast time.Duration, cause error) {
	if r.ticket != nil && !r.ticket.rejected.IsZero() && time.Since(r.ticket.rejected) >= rejectedFor {
		c.finish(r, nil, &UnconfirmedError{Cause: cause})
		return
	}
	r.due = time.Now().Add(max(c.cfg.Backoff.wait(r.tries-1), atLeast))
	s.remind(r.due)
}

// remind makes the writer look at the requests at that time.
func (s *session) remind(due time.Time) {
	if s != nil && (s.scanAt.IsZero() || due.Before(s.scanAt)) {
		s.scanAt = due
		s.poke()
	}
}

// scan makes requests ready whose time has come.
func (c *Client) scan(s *session, now time.Time) {
	s.scanAt = time.Time{}
	for r := range c.requests {
		switch {
		case r.ready:
		case now.Before(r.due):
			s.remind(r.due)
		default:
			if r.open {
				c.stats.Timeouts++
				delete(s.open, r.frame.GetId())
			}
			c.makeReady(r)
		}
	}
}

// resend makes everything ready that the last connection left unanswered.
func (c *Client) resend(s *session) {
	now := time.Now()
	for r := range c.requests {
		switch {
		case r.ready:
		case !r.open && now.Before(r.due):
			s.remind(r.due)
		default:
			c.makeReady(r)
		}
	}
	s.poke()
}
