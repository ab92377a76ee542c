package client

import (
	"time"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// rejectedFor is how long a command stays in the outbox while gateways refuse to take it although an earlier copy may be committed.
// It is far longer than a copy may wait for its worker, and than most rolling upgrades.
const rejectedFor = 5 * time.Minute

// refused notes what an error says about the copies of a command that were sent, and returns true if it is to be sent again
// although the error is not temporary.
//
// Only an outcome is a refusal: no copy of that attempt is committed after it. An error of the gateway itself says that it did
// not take this copy; it says nothing about copies that were sent before. UNAVAILABLE says that nothing is known.
func (t *Ticket) refused(outcome bool, refusal *RefusedError) (again bool) {
	switch {
	case refusal.Code == conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE:
		t.unconfirmed = true
	case outcome:
		t.attempt++
		t.unconfirmed, t.rejected = false, time.Time{}
	case refusal.temporary():
		t.unconfirmed = t.unconfirmed || refusal.Code == conversationv1.ErrorCode_ERROR_CODE_INTERNAL
	default:
		return t.rejectedAgain()
	}
	return false
}

// rejectedAgain notes that a command cannot be sent to this gateway, and returns true if it may have been sent to another one.
func (t *Ticket) rejectedAgain() bool {
	if t.unconfirmed && t.rejected.IsZero() {
		t.rejected = time.Now()
	}
	return t.unconfirmed
}
