package conversation

import (
	"github.com/runnelhq/runnel/pkg/ids"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// rules defines one kind of command. All methods are pure: only fold changes an argument, next. A kind embeds none and
// defines only the methods it needs.
type rules interface {
	// validate checks a body without knowing the conversation. Field paths begin with the name of the action, for example
	// "message.text".
	validate(sender ids.User, body *conversationv1.Body) *FieldError
	// needs returns the messages that check and targets read from request.facts.
	needs(sender ids.User, body *conversationv1.Body) []Need
	// check decides whether a valid command is allowed. The roles of the table were checked before.
	check(r *request) *conversationv1.Error
	// targets returns the content of Event.header_extra. The first target is the message that the event is about. The
	// targets include every message that effects reads, and everything that fold and effects need after the body is
	// erased. Returns nil if there are none.
	targets(r *request) *conversationv1.Targets
	// fold changes the state after the event. After the body is erased, fold must compute the same result from targets,
	// except for the erased text itself. It must not write into a map of the state, because other states share the map. A
	// new field of State must be stored with the conversation: a worker loads states and does not replay logs.
	fold(next *State, o *occurrence)
	// members returns the users whose membership the event begins, and the user whose membership it ends; for most events
	// both are empty.
	members(o *occurrence) (joined []string, left ids.User)
	// effects returns the rows that the event writes in addition to its own row. before is the state before the event.
	// effects may read view rows of other messages only if targets contains them: a rebuild of the views loads no other
	// rows.
	effects(before *State, o *occurrence) []*historyv1.Effect
}

// request is a command that is being decided.
type request struct {
	state  *State
	facts  *Facts
	sender ids.User
	role   Role
	body   *conversationv1.Body
	// id is the conversation of the command; commandID is the id of the command itself.
	id        ids.Conversation
	commandID ids.Command
	// timeMs is the stream's time of the command.
	timeMs int64
}

// occurrence is an event with its parts decoded.
type occurrence struct {
	event *conversationv1.Event
	// body is nil if it was erased.
	body *conversationv1.Body
	// targets is never nil; it is empty if the event has no targets.
	targets *conversationv1.Targets
	// facts are the facts before the event.
	facts *Facts
}

// none is embedded by kinds: its methods need nothing, refer to nothing and change nothing.
type none struct{}

func (none) validate(ids.User, *conversationv1.Body) *FieldError  { return nil }
func (none) needs(ids.User, *conversationv1.Body) []Need          { return nil }
func (none) check(*request) *conversationv1.Error                 { return nil }
func (none) targets(*request) *conversationv1.Targets             { return nil }
func (none) fold(*State, *occurrence)                             {}
func (none) members(*occurrence) (joined []string, left ids.User) { return nil, "" }
func (none) effects(*State, *occurrence) []*historyv1.Effect      { return nil }
