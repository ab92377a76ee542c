// Package request keeps each request to the gateway until it has its final answer: it sends requests again after a lost
// connection, a timeout or a temporary error. It does no I/O and knows neither conversations nor the outbox.
package request

import (
	"errors"
	"time"

	"github.com/runnelhq/runnel/pkg/errcode"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

var (
	// ErrTooLarge is the error of a request that is larger than the gateway accepts; it was not sent.
	ErrTooLarge = errors.New("client: request is larger than the gateway accepts")
	// ErrConnectionLost is the error of a request of one connection (OneConnection) when that connection ends.
	ErrConnectionLost = errors.New("connection was lost")
)

// Request is one request to the gateway. It is sent, on this connection and those after it, until there is a final answer:
//
//	          sent             answered
//	ready ───────────▶ open ───────────▶ finished
//	  ▲  ▲               │  │
//	  │  └── no answer ──┘  │ temporary error
//	  │      in time        ▼
//	  └─── wait is over ── waiting
//
// With a new connection every unfinished request becomes ready, except one that is waiting: it still waits.
type Request struct {
	// Frame is what is sent. Its id is that of the last time that it was sent.
	Frame *clientv1.ClientFrame
	// Prepare brings Frame up to date before it is sent. May be nil.
	Prepare func()
	// Done is called exactly once, with the answer or with an error.
	Done func(answer *clientv1.ServerFrame, err error)
	// OneConnection makes the request end with ErrConnectionLost when the connection ends.
	OneConnection bool
	// Policy decides when to retry a request that must not simply fail. Defaults to none: a temporary error is retried forever, any
	// other error is final.
	Policy Policy

	state state
	// due is when an open request times out, or a waiting one becomes ready.
	due   time.Time
	tries int
}

// Policy follows one request and decides whether it is sent again.
type Policy interface {
	// Sent is called when the request was written; again is false the first time.
	Sent(again bool)
	// Accepted is called when the server reports that it holds the request, before it answers.
	Accepted()
	// Unanswered is called when the request was written but not answered in time, or not before the connection ended.
	Unanswered()
	// Refused is called with the error of an answer; outcome is true if the answer is an outcome, false if the gateway itself
	// failed. If it returns true, the request is retried although the error is not temporary.
	Refused(refusal *conversationv1.Error, outcome bool) (retry bool)
	// TooLarge is called when the request is larger than this gateway accepts. If it returns true, the request is retried later.
	TooLarge() (retry bool)
	// Expired is called before the request waits for its next try. An error ends the request instead.
	Expired(cause error) error
}

type state int

const (
	waiting state = iota
	ready
	open
)

// WasSent returns true if the request was sent at least once.
func (r *Request) WasSent() bool { return r.tries > 0 }

func (r *Request) refused(refusal *conversationv1.Error, outcome bool) (retry bool) {
	// The policy is called in any case: it counts refusals.
	retry = r.Policy != nil && r.Policy.Refused(refusal, outcome)
	return retry || Temporary(refusal.GetCode())
}

func (r *Request) tooLarge() (retry bool) { return r.Policy != nil && r.Policy.TooLarge() }

func (r *Request) expired(cause error) error {
	if r.Policy == nil {
		return nil
	}
	return r.Policy.Expired(cause)
}

// Temporary returns true if a request is sent again after this error. A token that expired in the meantime is replaced with the
// connection, so it is no reason to give up a request.
func Temporary(code conversationv1.ErrorCode) bool {
	return errcode.Temporary(code) || code == conversationv1.ErrorCode_ERROR_CODE_UNAUTHENTICATED
}
