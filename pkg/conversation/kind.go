package conversation

import (
	"github.com/runnelhq/runnel/pkg/ids"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// rules define one kind of command. All methods are pure: they change none of their arguments but next in fold. A kind
// embeds none and defines only what it needs.
type rules interface {
	// validate checks what can be checked of a body without knowing the conversation. Field paths begin with the name of the
	// action, for example "message.text".
	validate(sender ids.User, body *conversationv1.Body) *FieldError
	// needs returns the messages that check and targets read from request.facts.
	needs(sender ids.User, body *conversationv1.Body) []Need
	// check decides whether a valid command is allowed. The table's roles were checked before.
	check(r *request) *conversationv1.Error
	// targets returns the content of Event.header_extra: every message that effects reads, the one that the event is about
	// first, and everything that fold and effects need once the body is erased. nil for nothing.
	targets(r *request) *conversationv1.Targets
	// fold changes the state after the event. Once the body is erased it must compute the same result from targets, except
	// for the erased text itself. It must not write into a map of the state, which other states share. A new field of State
	// must be stored with the conversation: a worker loads states, it does not replay logs.
	fold(next *State, o *occurrence)
	// members returns the users whose membership the event begins, and the user whose membership it ends; both mostly
	// empty.
	members(o *occurrence) (joined []string, left ids.User)
	// effects returns the rows that the event writes in addition to its own. before is the state before the event. Of other
	// messages it may read only the view rows of those in targets: a rebuild of the views has no more.
	effects(before *State, o *occurrence) []*historyv1.Effect
}

// request is a command that is being decided.
type request struct {
	state  *State
	facts  *Facts
	sender ids.User
	role   Role
	body   *conversationv1.Body
	// id is the conversation of the command, commandID its own id.
	id        ids.Conversation
	commandID ids.Command
	// timeMs is the stream's time of the command.
	timeMs int64
}

// occurrence is an event with its parts decoded.
type occurrence struct {
	event *conversationv1.Event
	// body is nil when it was erased.
	body *conversationv1.Body
	// targets is empty, never nil, when the event has none.
	targets *conversationv1.Targets
	// facts are the facts before the event.
	facts *Facts
}

// none is a kind that needs nothing, refers to nothing and changes nothing.
type none struct{}

func (none) validate(ids.User, *conversationv1.Body) *FieldError  { return nil }
func (none) needs(ids.User, *conversationv1.Body) []Need          { return nil }
func (none) check(*request) *conversationv1.Error                 { return nil }
func (none) targets(*request) *conversationv1.Targets             { return nil }
func (none) fold(*State, *occurrence)                             {}
func (none) members(*occurrence) (joined []string, left ids.User) { return nil, "" }
func (none) effects(*State, *occurrence) []*historyv1.Effect      { return nil }
