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
	// ErrTooLarge is the error of a request that is larger than the gateway accepts; the request was not sent.
	ErrTooLarge = errors.New("client: request is larger than the gateway accepts")
	// ErrConnectionLost is the error of a request with OneConnection when its connection ends.
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
// With a new connection every unfinished request becomes ready, except those that are waiting: they continue to wait.
type Request struct {
	// Frame is the frame to send. Its id is the id of the last time it was sent.
	Frame *clientv1.ClientFrame
	// Prepare updates Frame before each send. May be nil.
	Prepare func()
	// Done is called exactly once, with the answer or with an error.
	Done func(answer *clientv1.ServerFrame, err error)
	// OneConnection makes the request end with ErrConnectionLost when the connection ends.
	OneConnection bool
	// Policy decides when to retry a request. Defaults to none: a temporary error is always retried, any other error is
	// final.
	Policy Policy

	state state
	// turn is the request's place in the order of ready requests.
	turn uint64
	// due is when an open request times out, or when a waiting request becomes ready.
	due   time.Time
	tries int
}

// Policy observes one request and decides whether it is sent again.
type Policy interface {
	// Sent is called each time the request was written; again is false the first time.
	Sent(again bool)
	// Accepted is called when the server reports that it holds the request, before it answers.
	Accepted()
	// Unanswered is called when a written request was not answered in time, or not before the connection ended.
	Unanswered()
	// Refused is called with the error of an answer. outcome is true if the error is the outcome of the command, false if
	// it is an error of the gateway itself. If Refused returns true, the request is retried although the error is not
	// temporary.
	Refused(refusal *conversationv1.Error, outcome bool) (retry bool)
	// OverLimit is called if the request exceeds a limit of the gateway and is therefore not sent. If it returns true,
	// the request is retried later.
	OverLimit() (retry bool)
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
	// Call the policy for every error: it counts refusals.
	retry = r.Policy != nil && r.Policy.Refused(refusal, outcome)
	return retry || Temporary(refusal.GetCode())
}

func (r *Request) overLimit() (retry bool) { return r.Policy != nil && r.Policy.OverLimit() }

// counted reports whether the request counts towards the gateway's limit of open requests. Submits do not count.
func (r *Request) counted() bool { return r.Frame.GetSubmit() == nil }

func (r *Request) expired(cause error) error {
	if r.Policy == nil {
		return nil
	}
	return r.Policy.Expired(cause)
}

// Temporary returns true if a request is sent again after this error. An expired token is temporary: the next connection
// has a new token.
func Temporary(code conversationv1.ErrorCode) bool {
	return errcode.Temporary(code) || code == conversationv1.ErrorCode_ERROR_CODE_UNAUTHENTICATED
}
