package request

import (
	"time"

	"github.com/runnelhq/runnel/pkg/frame"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// Config is what a Queue depends on. All fields are required.
type Config struct {
	Codec frame.Codec
	// Timeout is the time limit for an answer.
	Timeout time.Duration
	// Backoff returns how long to wait after this many consecutive failures, counted from 0.
	Backoff func(failures int) time.Duration
	// Check returns an error if a request exceeds a limit of the gateway. Such a request is not sent.
	Check func(f *clientv1.ClientFrame) error
	// Refused returns the error of a final refusal.
	Refused func(answer *clientv1.ServerFrame, refusal *conversationv1.Error) error
	// Wake is called when there is something to send, or when Due becomes earlier.
	Wake func()
}

// Limits are the gateway's limits that the queue respects.
type Limits struct {
	// FrameBytes is the maximum size of a message. OpenRequests is the maximum number of unanswered requests other than
	// submits. A value of 0 means that the limit is unknown.
	FrameBytes, OpenRequests int
}

// Queue holds the unfinished requests of a client. It is not safe for concurrent use: the caller's lock guards it. Callbacks
// (Done, Prepare, Policy) are called under that lock.
type Queue struct {
	cfg Config
	// pending are all unfinished requests. submits and ready are the requests to be sent next: submits, and all others.
	// Some of them may have finished meanwhile.
	pending        map[*Request]struct{}
	ready, submits []*Request
	lastTurn       uint64

	// The remaining fields belong to the present connection. open are the open requests by their id on it; nil without a
	// connection.
	open   map[uint64]*Request
	limits Limits
	// counted is the number of open requests that are not submits.
	counted int
	lastID  uint64
	// due is when the next request times out or becomes ready; zero if no request does.
	due time.Time

	// Retries counts how often a request was sent again. Timeouts counts how often the reason was that no answer came in
	// time.
	Retries, Timeouts uint64
}

// NewQueue makes an empty queue.
func NewQueue(cfg Config) *Queue { return &Queue{cfg: cfg, pending: map[*Request]struct{}{}} }

// Pending is the number of unfinished requests.
func (q *Queue) Pending() int { return len(q.pending) }

// Due returns when Append has work to do without being woken; zero if there is none.
func (q *Queue) Due() time.Time { return q.due }

// Ask adds a request that is sent as soon as possible.
func (q *Queue) Ask(r *Request) { q.AskAfter(r, 0) }

// AskAfter adds a request that waits first.
func (q *Queue) AskAfter(r *Request, wait time.Duration) {
	q.pending[r] = struct{}{}
	if wait > 0 {
		q.makeWait(r, wait)
	} else {
		q.makeReady(r)
	}
}

// Finish ends a request with an answer or an error. It does nothing if the request has already ended.
func (q *Queue) Finish(r *Request, answer *clientv1.ServerFrame, err error) {
	if _, unfinished := q.pending[r]; !unfinished {
		return
	}
	delete(q.pending, r)
	q.closed(r)
	r.state = waiting
	r.Done(answer, err)
}

// FailAll ends all requests with an error.
func (q *Queue) FailAll(err error) {
	for r := range q.pending {
		q.Finish(r, nil, err)
	}
	q.ready, q.submits = nil, nil
}

// Connect begins a connection: requests that were unanswered on the previous connection are sent again. Request ids
// continue after lastID.
func (q *Queue) Connect(limits Limits, lastID uint64) {
	q.limits, q.lastID, q.open, q.counted, q.due = limits, lastID, map[uint64]*Request{}, 0, time.Time{}
	now := time.Now()
	for r := range q.pending {
		switch {
		case r.state == ready:
		case r.state == waiting && now.Before(r.due):
			q.remind(r.due)
		default:
			q.makeReady(r)
		}
	}
	q.cfg.Wake()
}

// Disconnect ends a connection, and the requests that are limited to it (OneConnection).
func (q *Queue) Disconnect() {
	q.open, q.counted, q.due = nil, 0, time.Time{}
	for r := range q.pending {
		if r.OneConnection {
			q.Finish(r, nil, ErrConnectionLost)
		}
	}
}

// Accepted handles the notice that the server holds the request with this id.
func (q *Queue) Accepted(id uint64) {
	if r := q.open[id]; r != nil && r.Policy != nil {
		r.Policy.Accepted()
	}
}

// Answer handles the answer to a request. A late answer is dropped: meanwhile the request was sent again or has ended.
func (q *Queue) Answer(f *clientv1.ServerFrame) {
	r := q.open[f.GetId()]
	if r == nil {
		return
	}
	q.closed(r)
	r.state = waiting
	refusal := f.GetError()
	if refusal == nil {
		refusal = f.GetOutcome().GetError()
	}
	if refusal == nil {
		q.Finish(r, f, nil)
		return
	}
	err := q.cfg.Refused(f, refusal)
	if !r.refused(refusal, f.GetOutcome() != nil) {
		q.Finish(r, f, err)
		return
	}
	q.retryLater(r, q.wait(r, refusal), err)
}

const (
	// maxRetryWait bounds the wait after a temporary error of the server. It is far below the bound of the backoff: the
	// connection is up, so no crowd of clients reconnects, and an overloaded server delays its refusals itself.
	maxRetryWait = 5 * time.Second
	// maxRetryAfter bounds the wait that the server requests.
	maxRetryAfter = time.Minute
)

// wait returns how long a refused request waits for its next try.
//
// If the server is overloaded and names a time, the wait is up to twice that time, however often the request was refused.
// The server knows how much load it can bear, and waits that grew during an outage would continue after it.
func (q *Queue) wait(r *Request, refusal *conversationv1.Error) time.Duration {
	grown := q.cfg.Backoff(r.tries - 1)
	asked := min(time.Duration(refusal.GetRetryAfterMs())*time.Millisecond, maxRetryAfter)
	switch refusal.GetCode() {
	case conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE, conversationv1.ErrorCode_ERROR_CODE_INTERNAL:
		if asked > 0 {
			return asked + min(grown, asked)
		}
		return min(grown, maxRetryWait)
	default:
		return max(grown, asked)
	}
}

// next returns the list whose first request is to be sent next. It returns nil if the gateway accepts no request now.
// Requests are sent in the order in which they became ready. If the gateway's limit of open requests is reached, submits
// overtake the requests that must wait.
func (q *Queue) next() *[]*Request {
	for _, list := range []*[]*Request{&q.ready, &q.submits} {
		for len(*list) > 0 && (*list)[0].state != ready { // the request ended while it was in this list
			*list = (*list)[1:]
		}
		if len(*list) == 0 {
			*list = nil
		}
	}
	switch full := q.limits.OpenRequests > 0 && q.counted >= q.limits.OpenRequests; {
	case len(q.submits) == 0 && (len(q.ready) == 0 || full):
		return nil
	case len(q.ready) == 0 || full:
		return &q.submits
	case len(q.submits) == 0 || q.ready[0].turn < q.submits[0].turn:
		return &q.ready
	default:
		return &q.submits
	}
}

// Append appends requests to buf for one message: at most frames requests, and no more bytes than the gateway accepts.
// First it makes due requests ready.
func (q *Queue) Append(buf []byte, frames int) []byte {
	if q.open == nil {
		return buf
	}
	if !q.due.IsZero() && !time.Now().Before(q.due) {
		q.makeDueReady()
	}
	for frames > 0 {
		list := q.next()
		if list == nil {
			break
		}
		r := (*list)[0]
		if r.Prepare != nil {
			r.Prepare()
		}
		if err := q.cfg.Check(r.Frame); err != nil {
			*list = (*list)[1:]
			q.overLimit(r, err)
			continue
		}
		q.lastID++
		r.Frame.Id = q.lastID
		before := len(buf)
		buf = frame.AppendClient(buf, q.cfg.Codec, r.Frame)
		switch size, most := len(buf)-before, q.limits.FrameBytes; {
		case most > 0 && size > most:
			buf = buf[:before]
			*list = (*list)[1:]
			q.overLimit(r, ErrTooLarge)
			continue
		case most > 0 && before > 0 && len(buf) > most:
			// The request goes into the next message.
			return buf[:before]
		}
		*list = (*list)[1:]
		q.makeOpen(r)
		frames--
	}
	return buf
}

// overLimit ends a request that exceeds a limit of the gateway, unless the request's policy retries it.
func (q *Queue) overLimit(r *Request, err error) {
	if !r.overLimit() {
		q.Finish(r, nil, err)
		return
	}
	r.tries++
	q.retryLater(r, q.cfg.Backoff(r.tries-1), err)
}

// closed removes a request from the open requests. If other requests waited for its place, the writer is woken.
func (q *Queue) closed(r *Request) {
	if r.state != open || q.open[r.Frame.GetId()] != r {
		return
	}
	delete(q.open, r.Frame.GetId())
	if !r.counted() {
		return
	}
	if q.counted--; len(q.ready) > 0 {
		q.cfg.Wake()
	}
}

// makeDueReady makes due requests ready.
func (q *Queue) makeDueReady() {
	q.due = time.Time{}
	now := time.Now()
	for r := range q.pending {
		switch {
		case r.state == ready:
		case now.Before(r.due):
			q.remind(r.due)
		default:
			if r.state == open {
				q.Timeouts++
				q.closed(r)
			}
			q.makeReady(r)
		}
	}
}

// retryLater makes a request wait for its next try, unless its policy ends it.
func (q *Queue) retryLater(r *Request, wait time.Duration, cause error) {
	if err := r.expired(cause); err != nil {
		q.Finish(r, nil, err)
		return
	}
	q.makeWait(r, wait)
}

func (q *Queue) makeReady(r *Request) {
	if r.state == ready {
		return
	}
	if r.state == open && r.Policy != nil {
		r.Policy.Unanswered()
	}
	q.lastTurn++
	r.state, r.turn = ready, q.lastTurn
	if r.counted() {
		q.ready = append(q.ready, r)
	} else {
		q.submits = append(q.submits, r)
	}
	q.cfg.Wake()
}

func (q *Queue) makeWait(r *Request, wait time.Duration) {
	r.state, r.due = waiting, time.Now().Add(wait)
	q.remind(r.due)
}

func (q *Queue) makeOpen(r *Request) {
	r.tries++
	if r.tries > 1 {
		q.Retries++
	}
	if r.Policy != nil {
		r.Policy.Sent(r.tries > 1)
	}
	r.state, r.due = open, time.Now().Add(q.cfg.Timeout)
	q.open[r.Frame.GetId()] = r
	if r.counted() {
		q.counted++
	}
	q.remind(r.due)
}

// remind moves Due to the time due, unless Due is already earlier.
func (q *Queue) remind(due time.Time) {
	if q.open != nil && (q.due.IsZero() || due.Before(q.due)) {
		q.due = due
		q.cfg.Wake()
	}
}
