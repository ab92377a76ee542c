package conversation

import (
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// Level is a protocol level: it determines which kinds, fields and id forms may be admitted. Each installation has a
// level, see GetInstallation of the history service. Each build knows the kinds up to its MaxLevel.
type Level uint32

// MinLevel is the lowest level.
const MinLevel Level = 1

// Levels of fields whose rules changed after their kind was introduced; see leveled.
const (
	// carriageReturns is the first level at which texts may contain carriage returns.
	carriageReturns Level = 2

	// mappedUsers is the first level at which commands may contain mapped user ids, see MapUser.
	mappedUsers Level = 2

	// maxFieldLevel is the highest of these levels.
	maxFieldLevel = max(carriageReturns, mappedUsers)
)

// Class says whether the content of a kind's events can be erased.
type Class uint8

const (
	// Content can be erased: the body holds free text.
	Content Class = 1 + iota
	// Structure cannot be erased: the body holds ids and seqs only.
	Structure
)

// String returns the name used in documentation.
func (c Class) String() string {
	if c == Structure {
		return "structure"
	}
	return "content"
}

// row describes one kind in the table.
type row struct {
	// kind is the number of the action in Body.
	kind  conversationv1.EventKind
	rules rules
	class Class
	// level is the lowest level at which the kind is admitted.
	level Level
	// roles are the roles that may send the command. apply.go defines the order of the checks.
	roles Roles
	// inDirect means that the kind is allowed in direct conversations.
	inDirect bool
	// message means that the kind's events are messages: ReadMessages lists them, and they can be edited, deleted and
	// reacted to.
	message bool
	// belongs means that the kind's events belong to the message that is their first target: deleting the message also
	// erases their content.
	belongs bool
	// membership means that the kind's events begin or end memberships.
	membership bool
	// removes means that the kind's events end the membership of another user. Then only the owner may add this user
	// again.
	removes bool
	// erases means that the kind's events erase content of earlier events.
	erases bool
	// doc is one sentence for the table in README.md.
	doc string
}

// table lists every kind, by number. A test fails if Body has a kind that is missing here.
func table() []row {
	return []row{
		{kind: 1, rules: createKind{}, class: Content, level: 1, roles: AnyUser, inDirect: true, membership: true, doc: "Creates a conversation; the sender becomes a member and, of a group, its owner."},
		{kind: 2, rules: messageKind{}, class: Content, level: 1, roles: Members, inDirect: true, message: true, doc: "Sends a message."},
		{kind: 3, rules: addMembersKind{}, class: Structure, level: 1, roles: Members, membership: true, doc: "Adds users to a group. Only the owner may add a user who was removed."},
		{kind: 4, rules: removeMemberKind{}, class: Structure, level: 1, roles: Owners, membership: true, removes: true, doc: "Removes another member from a group."},
		{kind: 5, rules: leaveKind{}, class: Structure, level: 1, roles: Members, membership: true, doc: "Leaves a group."},
		{kind: 6, rules: renameKind{}, class: Content, level: 1, roles: Members, doc: "Renames a group."},
		{kind: 7, rules: editKind{}, class: Content, level: 1, roles: Members, inDirect: true, belongs: true, doc: "Replaces the content of the sender's own message."},
		{kind: 8, rules: deleteKind{}, class: Structure, level: 1, roles: Members, inDirect: true, erases: true, doc: "Deletes a message for everyone: the sender's own, or as the owner of the group anybody's."},
		{kind: 9, rules: reactKind{}, class: Content, level: 1, roles: Members, inDirect: true, belongs: true, doc: "Adds a reaction to a message, or removes it."},
		{kind: 10, rules: eraseKind{}, class: Structure, level: 1, roles: Server, inDirect: true, erases: true, doc: "Erases content from the log."},
	}
}

// rows is the table by kind; index 0 is unused.
var rows = func() []*row {
	byKind := make([]*row, 0, 16)
	for _, r := range append(table(), nextKinds()...) {
		for len(byKind) <= int(r.kind) {
			byKind = append(byKind, nil)
		}
		byKind[r.kind] = &r
	}
	return byKind
}()

// rowOf returns the row of a kind; nil for a kind that this build does not know.
func rowOf(kind conversationv1.EventKind) *row {
	if kind < 0 || int(kind) >= len(rows) {
		return nil
	}
	return rows[kind]
}

// MaxLevel returns the highest level that this build knows.
func MaxLevel() Level { return maxLevel }

// maxLevel is computed once, because it is needed for every command.
var maxLevel = func() Level {
	highest := max(MinLevel, maxFieldLevel)
	for _, r := range rows {
		if r != nil {
			highest = max(highest, r.level)
		}
	}
	return highest
}()

// LevelOf returns the lowest level at which a body may be admitted; 0 for a body whose kind this build does not know.
func LevelOf(body *conversationv1.Body) Level {
	r := rowOf(KindOf(body))
	if r == nil {
		return 0
	}
	if byField, ok := r.rules.(leveled); ok {
		return max(r.level, byField.levelOf(body))
	}
	return r.level
}

// leveled is implemented by a kind whose rules changed after it was introduced: with some fields or values, a body needs
// a higher level than the kind itself.
type leveled interface {
	levelOf(body *conversationv1.Body) Level
}

// Kinds lists the kinds that this build knows, by number.
func Kinds() []conversationv1.EventKind {
	var kinds []conversationv1.EventKind
	for _, r := range rows {
		if r != nil {
			kinds = append(kinds, r.kind)
		}
	}
	return kinds
}

// MessageKinds returns the kinds whose events are messages.
func MessageKinds() []conversationv1.EventKind {
	return kindsThat(func(r *row) bool { return r.message })
}

// kindsThat lists the kinds whose row fits, by number.
func kindsThat(fits func(*row) bool) []conversationv1.EventKind {
	return slices.DeleteFunc(Kinds(), func(kind conversationv1.EventKind) bool { return !fits(rowOf(kind)) })
}

// Erases reports whether events of a kind erase content of earlier events. Copies of the erased events in memory must
// then be removed.
func Erases(kind conversationv1.EventKind) bool {
	r := rowOf(kind)
	return r != nil && r.erases
}

// KindOf returns the kind of the event that a body causes; EVENT_KIND_UNSPECIFIED for a body without an action, or with one
// that this build does not know.
func KindOf(body *conversationv1.Body) conversationv1.EventKind {
	if _, ok := body.GetAction().(*conversationv1.Body_Message); ok {
		return conversationv1.EventKind_EVENT_KIND_MESSAGE // most bodies are messages; this avoids reflection
	}
	message := body.ProtoReflect()
	if field := message.WhichOneof(message.Descriptor().Oneofs().Get(0)); field != nil {
		return conversationv1.EventKind(field.Number())
	}
	return conversationv1.EventKind_EVENT_KIND_UNSPECIFIED
}

// KindOfBytes returns the kind of an encoded body, including one that this build does not know; EVENT_KIND_UNSPECIFIED if
// it has no action or more than one, or cannot be decoded.
func KindOfBytes(body []byte) conversationv1.EventKind {
	var kind conversationv1.EventKind
	for len(body) > 0 {
		number, wireType, n := protowire.ConsumeTag(body)
		if n < 0 {
			return conversationv1.EventKind_EVENT_KIND_UNSPECIFIED
		}
		if number <= maxAction {
			if kind != 0 || wireType != protowire.BytesType {
				return conversationv1.EventKind_EVENT_KIND_UNSPECIFIED
			}
			kind = conversationv1.EventKind(number)
		}
		size := protowire.ConsumeFieldValue(number, wireType, body[n:])
		if size < 0 {
			return conversationv1.EventKind_EVENT_KIND_UNSPECIFIED
		}
		body = body[n+size:]
	}
	return kind
}

// maxAction is the highest field number of an action in Body.
const maxAction = 999

// Description is the public description of a kind.
type Description struct {
	Class Class
	// Level is the lowest level at which the kind is admitted.
	Level Level
	Roles Roles
	// InDirect means that the kind is allowed in direct conversations.
	InDirect bool
	// Doc is a one-sentence description.
	Doc string
}

// Describe returns the description of a kind and the name of its action in Body; the zero value for a kind that this build
// does not know.
func Describe(kind conversationv1.EventKind) (Description, string) {
	r := rowOf(kind)
	if r == nil {
		return Description{}, ""
	}
	var name string
	if field := (&conversationv1.Body{}).ProtoReflect().Descriptor().Fields().ByNumber(protowire.Number(kind)); field != nil {
		name = string(field.Name())
	}
	return Description{Class: r.class, Level: r.level, Roles: r.roles, InDirect: r.inDirect, Doc: r.doc}, name
}
