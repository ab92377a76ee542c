package conversation

import (
	"fmt"
	"slices"
	"unicode"
	"unicode/utf8"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// Limits of a command's body. They are part of the protocol: clients in the field rely on them, so they may be raised, not lowered.
const (
	MaxTextBytes          = 8192
	MaxNameBytes          = 256
	MaxMetadataEntries    = 16
	MaxMetadataKeyBytes   = 64
	MaxMetadataValueBytes = 1024
	MaxMembersPerAdd      = 100
	// MaxMembers is the most members of a group.
	MaxMembers = 2000
)

// FieldError says which field of a command breaks its rule.
type FieldError struct {
	// Field is the path below the body, for example "message.text".
	Field string
	// Rule says what would have been right. It never repeats the offending value, which may be private.
	Rule string
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Rule }

func invalid(field, format string, args ...any) *FieldError {
	return &FieldError{Field: field, Rule: fmt.Sprintf(format, args...)}
}

// Validate checks what can be checked of a body without knowing the conversation. Gateways call it at the edge; apply
// calls it again, because the stream is an input too.
func Validate(sender string, body *conversationv1.Body) *FieldError {
	switch action := body.GetAction().(type) {
	case *conversationv1.Body_Create:
		return validateCreate(sender, action.Create)
	case *conversationv1.Body_Message:
		return validateMessage(action.Message)
	case *conversationv1.Body_AddMembers:
		return validateMembers("add_members.members", action.AddMembers.GetMembers(), 1, MaxMembersPerAdd)
	case *conversationv1.Body_RemoveMember:
		switch member := action.RemoveMember.GetMember(); {
		case !ValidUser(member):
			return invalid("remove_member.member", "must be 1 to %d characters A-Z a-z 0-9 _ -", MaxIDBytes)
		case member == sender:
			return invalid("remove_member.member", "is the sender; use leave")
		}
		return nil
	case *conversationv1.Body_Leave:
		return nil
	case *conversationv1.Body_Rename:
		if action.Rename.GetName() == "" {
			return invalid("rename.name", "must not be empty")
		}
		return validateName("rename.name", action.Rename.GetName())
	default:
		return invalid("", "must have exactly one action")
	}
}

func validateCreate(sender string, create *conversationv1.Create) *FieldError {
	least, most := 0, MaxMembers-1
	switch create.GetKind() {
	case conversationv1.Kind_KIND_DIRECT:
		least, most = 1, 1
		if create.GetName() != "" {
			return invalid("create.name", "must be empty for a direct conversation")
		}
	case conversationv1.Kind_KIND_GROUP:
		if err := validateName("create.name", create.GetName()); err != nil {
			return err
		}
	default:
		return invalid("create.kind", "must be KIND_DIRECT or KIND_GROUP")
	}
	if slices.Contains(create.GetMembers(), sender) {
		return invalid("create.members", "must not name the sender, who is a member anyway")
	}
	return validateMembers("create.members", create.GetMembers(), least, most)
}

func validateMembers(field string, members []string, least, most int) *FieldError {
	if len(members) < least || len(members) > most {
		return invalid(field, "must have %d to %d entries", least, most)
	}
	seen := make(map[string]struct{}, len(members))
	for i, member := range members {
		if !ValidUser(member) {
			return invalid(fmt.Sprintf("%s[%d]", field, i), "must be 1 to %d characters A-Z a-z 0-9 _ -", MaxIDBytes)
		}
		if _, twice := seen[member]; twice {
			return invalid(fmt.Sprintf("%s[%d]", field, i), "is named twice")
		}
		seen[member] = struct{}{}
	}
	return nil
}

func validateMessage(message *conversationv1.Message) *FieldError {
	text, metadata := message.GetText(), message.GetMetadata()
	switch {
	case text == "" && len(metadata) == 0:
		return invalid("message.text", "must not be empty unless metadata is set")
	case len(text) > MaxTextBytes:
		return invalid("message.text", "must be at most %d bytes", MaxTextBytes)
	case !validText(text, true):
		return invalid("message.text", "must be UTF-8 without control characters other than tab and line feed")
	case len(metadata) > MaxMetadataEntries:
		return invalid("message.metadata", "must have at most %d entries", MaxMetadataEntries)
	}
	for key, value := range metadata {
		switch {
		case !validKey(key):
			return invalid("message.metadata", "keys must be 1 to %d characters A-Z a-z 0-9 _ . -", MaxMetadataKeyBytes)
		case len(value) > MaxMetadataValueBytes || !utf8.ValidString(value):
			// The key is valid by now, so it is safe to repeat.
			return invalid("message.metadata."+key, "must be at most %d bytes of UTF-8", MaxMetadataValueBytes)
		}
	}
	return nil
}

func validateName(field, name string) *FieldError {
	if len(name) > MaxNameBytes || !validText(name, false) {
		return invalid(field, "must be at most %d bytes of UTF-8 without control characters", MaxNameBytes)
	}
	return nil
}

func validText(s string, lines bool) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if unicode.IsControl(r) && (!lines || (r != '\n' && r != '\t')) {
			return false
		}
	}
	return true
}

func validKey(key string) bool {
	if len(key) == 0 || len(key) > MaxMetadataKeyBytes {
		return false
	}
	for i := range len(key) {
		if c := key[i]; c != '.' && !ValidUser(key[i:i+1]) {
			return false
		}
	}
	return true
}
