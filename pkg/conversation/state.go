package conversation

import (
	"github.com/runnelhq/runnel/pkg/ids"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// State is everything that apply knows about a conversation. A State is never changed: apply makes a new one. Therefore
// the states of a batch that is not committed are simply dropped. The zero value (or nil) is a conversation that does not
// exist.
type State struct {
	Kind    conversationv1.Kind
	Name    string
	Creator ids.User
	Head    ids.Seq
	// HeadHash is the hash of the event at Head, nil when Head is 0.
	HeadHash []byte
	// NameSource is the event that set Name: erasing that event erases the name.
	NameSource NameSource
	// Members maps each current member to the seq of the event that began the membership. Shared between States; never
	// written to.
	Members map[ids.User]ids.Seq
	// Removed maps each user whose last membership was ended by another user to the seq of the event that ended it. Only
	// the owner may add them again. nil if there are none. Shared between States; never written to.
	Removed map[ids.User]ids.Seq
}

// firstSeq is the seq of the event that creates a conversation.
const firstSeq ids.Seq = 1

// NameSource identifies the event that set a conversation's name.
type NameSource struct {
	Seq    ids.Seq
	Sender ids.User
	TimeMs int64
}

// Owner returns the member who may remove others: the creator, or if the creator left, the member of longest standing
// (ties go to the lower user id). A creator who left and was added again is an ordinary member. Owner returns an empty id
// if there are no members. The owner is computed from the state, so no command transfers ownership.
func (s *State) Owner() ids.User {
	if s.Members[s.Creator] == firstSeq {
		return s.Creator
	}
	var owner ids.User
	var since ids.Seq
	for member, joined := range s.Members {
		if owner == "" || joined < since || (joined == since && member < owner) {
			owner, since = member, joined
		}
	}
	return owner
}

// Fold returns the state after a committed event. It panics on an event of a kind that this build does not know. Such an
// event never reaches it: a part below the installation's level does not start.
func Fold(state *State, event *conversationv1.Event) *State {
	if state == nil {
		state = &State{}
	}
	return fold(state, open(event, nil))
}

func fold(state *State, o *occurrence) *State {
	next := *state
	next.Head, next.HeadHash = ids.Seq(o.event.GetSeq()), o.event.GetHash()
	rowOf(o.event.GetKind()).rules.fold(&next, o)
	return &next
}

// open decodes the parts of a committed event. A body that cannot be decoded counts as erased; verification reports it.
func open(event *conversationv1.Event, facts *Facts) *occurrence {
	o := &occurrence{event: event, targets: TargetsOf(event), facts: facts}
	if len(event.GetBody()) > 0 {
		body := &conversationv1.Body{}
		if body.UnmarshalVT(event.GetBody()) == nil {
			o.body = body
		}
	}
	return o
}

var noTargets = &conversationv1.Targets{}

// TargetsOf decodes the targets in an event's header. The result is never nil; it is empty if the event has no targets,
// or if they cannot be decoded. It must not be changed.
func TargetsOf(event *conversationv1.Event) *conversationv1.Targets {
	if len(event.GetHeaderExtra()) == 0 {
		return noTargets
	}
	targets := &conversationv1.Targets{}
	if targets.UnmarshalVT(event.GetHeaderExtra()) != nil {
		return noTargets
	}
	return targets
}

// Joiners returns the users whose membership an event begins; empty for most events.
func Joiners(event *conversationv1.Event) []string {
	joined, _ := Memberships(event)
	return joined
}

// Leaver returns the user whose membership an event ends; empty for most events.
func Leaver(event *conversationv1.Event) ids.User {
	_, left := Memberships(event)
	return left
}

// Memberships returns the users whose membership an event begins and the user whose membership it ends. It decodes only
// events of kinds that change memberships, so it is cheap for messages.
func Memberships(event *conversationv1.Event) (joined []string, left ids.User) {
	if r := rowOf(event.GetKind()); r != nil && r.membership {
		return r.rules.members(open(event, nil))
	}
	return nil, ""
}
