package room

import (
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/gateway/metrics"
	"github.com/runnelhq/runnel/services/gateway/page"
)

// A gateway reads the log only in the name of a user who may see it; the history service refuses every other read.
// Therefore a stolen gateway certificate reads no more than the gateway's users may see. A room reads in the name of one
// of its subscribers.

// errUnseen means that the user in whose name an event was read may not see it, according to the store.
var errUnseen = errors.New("the store does not show the event to this user")

// viewerLocked returns a subscription whose user may see the event after a seq; nil if there is none. It skips the users
// in except.
func (r *Room) viewerLocked(after ids.Seq, except map[ids.User]bool) *Subscription {
	for _, s := range r.subscriptions {
		if s.from <= after+1 && (s.until == 0 || s.until > after) && !except[s.to.User] {
			return s
		}
	}
	return nil
}

// passOverLocked is called when no user in the room may see the event after the head. It moves the head to the first
// event that a user in the room may see. It returns false if there is no such event.
func (r *Room) passOverLocked() bool {
	var next ids.Seq
	for _, s := range r.subscriptions {
		if s.until == 0 && s.from > r.head+1 && (next == 0 || s.from < next) {
			next = s.from
		}
	}
	if next == 0 {
		return false
	}
	r.dropLocked(len(r.recent)) // recent events must end at the head
	r.head, r.headHash = next-1, nil
	r.seen = max(r.seen, r.head)
	return true
}

// readAs reads events after a seq in the name of a user. A page ends before the first event that the user may not see. If
// that is the next event, it returns errUnseen, together with the page if the user ever was a member.
func (r *Room) readAs(viewer ids.User, purpose metrics.ReadPurpose, after ids.Seq) (*historyv1.ReadResponse, error) {
	read, err := r.hub.read(purpose, &historyv1.ReadRequest{
		ConversationId: string(r.id), Viewer: string(viewer), After: uint64(after), Limit: pageEvents,
	})
	switch {
	case status.Code(err) == codes.NotFound:
		return nil, errUnseen
	case err != nil:
		return nil, err
	}
	if err := page.CheckRising(r.id, read, after); err != nil {
		return nil, err
	}
	events := read.GetEvents()
	for i, event := range events {
		if ids.Seq(event.GetSeq()) != after+1+ids.Seq(i) {
			events = events[:i]
			break
		}
	}
	if len(events) == 0 && (!read.GetMember() || len(read.GetHidden()) > 0) {
		return read, errUnseen
	}
	// Copy only the top level: the rest may be shared with the store.
	return &historyv1.ReadResponse{
		Events: events, Head: read.GetHead(), Member: read.GetMember(), More: read.GetMore() || len(events) < len(read.GetEvents()),
	}, nil
}
