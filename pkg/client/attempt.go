package client

import (
	"time"

	"github.com/runnelhq/runnel/pkg/client/internal/request"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// rejectedFor is how long a command with an unconfirmed copy stays in the outbox while gateways reject it. The time is
// far longer than a copy may wait for its worker, and longer than most rolling upgrades.
const rejectedFor = 5 * time.Minute

// attempt records what is known about the copies of one command that were sent. It is the request.Policy of the command.
//
// Only an outcome can refuse a command: after it, no copy of that attempt is committed. An error of the gateway itself
// means only that the gateway did not take this copy; it says nothing about earlier copies. UNAVAILABLE means that
// nothing is known about this copy.
type attempt struct {
	// number is how often the command was refused. The server takes a copy as a new attempt only if the number has risen.
	number uint32
	// unconfirmed means that a copy was sent and its outcome is not known.
	unconfirmed bool
	// rejectedSince is when gateways began to reject a command with an unconfirmed copy; zero while they accept it.
	rejectedSince time.Time
	// note adds a note to the span of the command.
	note func(what string)
	// accepted is called when the broker holds a copy of the command.
	accepted func()
}

func (a *attempt) Sent(again bool) {
	if again {
		a.note("sent again")
	} else {
		a.note("sent")
	}
}

func (a *attempt) Accepted() {
	a.note("accepted")
	a.accepted()
}

func (a *attempt) Unanswered() { a.unconfirmed = true }

func (a *attempt) Refused(refusal *conversationv1.Error, outcome bool) (retry bool) {
	switch {
	case refusal.GetCode() == conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE:
		a.unconfirmed = true
	case outcome:
		a.number++
		a.unconfirmed, a.rejectedSince = false, time.Time{}
	case request.Temporary(refusal.GetCode()):
		a.unconfirmed = a.unconfirmed || refusal.GetCode() == conversationv1.ErrorCode_ERROR_CODE_INTERNAL
	default:
		return a.rejected()
	}
	return false
}

func (a *attempt) OverLimit() (retry bool) { return a.rejected() }

// rejected records that this gateway rejects the command. It returns true if an earlier copy may have been committed.
func (a *attempt) rejected() (retry bool) {
	if a.unconfirmed && a.rejectedSince.IsZero() {
		a.rejectedSince = time.Now()
	}
	return a.unconfirmed
}

func (a *attempt) Expired(cause error) error {
	if !a.rejectedSince.IsZero() && time.Since(a.rejectedSince) >= rejectedFor {
		return &UnconfirmedError{Cause: cause}
	}
	return nil
}
