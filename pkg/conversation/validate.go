package conversation

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/protocol"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// FieldError describes which field of a command is invalid.
type FieldError struct {
	// Field is the path below the body, for example "message.text".
	Field string
	// Rule describes a valid value. It never repeats the invalid value, which may be private.
	Rule string
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Rule }

func invalid(field, format string, args ...any) *FieldError {
	return &FieldError{Field: field, Rule: fmt.Sprintf(format, args...)}
}

// Validate checks a body without knowing the conversation. Gateways call it at the edge. apply calls it again, because
// the stream is also untrusted input.
func Validate(sender ids.User, body *conversationv1.Body) *FieldError {
	r := rowOf(KindOf(body))
	if r == nil {
		return invalid("", "must have exactly one action")
	}
	return r.rules.validate(sender, body)
}

// MayAsk reports whether a user with any role may send commands of this body's kind. Gateways refuse all other commands
// at the edge.
func MayAsk(body *conversationv1.Body) bool {
	r := rowOf(KindOf(body))
	return r != nil && r.roles&AnyUser != 0
}

func validateMembers(field string, members []string, least, most int) *FieldError {
	if len(members) < least || len(members) > most {
		return invalid(field, "must have %d to %d entries", least, most)
	}
	seen := make(map[string]struct{}, len(members))
	for i, member := range members {
		if !ValidUser(member) {
			return invalid(fmt.Sprintf("%s[%d]", field, i), "%s", UserRule)
		}
		if _, twice := seen[member]; twice {
			return invalid(fmt.Sprintf("%s[%d]", field, i), "is named twice")
		}
		seen[member] = struct{}{}
	}
	return nil
}

// validateContent checks the fields that messages and edits have in common.
func validateContent(field, text string, metadata map[string]string) *FieldError {
	switch {
	case text == "" && len(metadata) == 0:
		return invalid(field+".text", "must not be empty unless metadata is set")
	case len(text) > protocol.MaxTextBytes:
		return invalid(field+".text", "must be at most %d bytes", protocol.MaxTextBytes)
	case !validText(text, true):
		return invalid(field+".text", "must be UTF-8 without control characters other than tab, line feed and carriage return")
	case len(metadata) > protocol.MaxMetadataEntries:
		return invalid(field+".metadata", "must have at most %d entries", protocol.MaxMetadataEntries)
	}
	for key, value := range metadata {
		switch {
		case !validKey(key):
			return invalid(field+".metadata", "keys must be 1 to %d characters A-Z a-z 0-9 _ . -", protocol.MaxMetadataKeyBytes)
		case len(value) > protocol.MaxMetadataValueBytes || !utf8.ValidString(value):
			// The key was checked before, so the error may repeat it.
			return invalid(field+".metadata."+key, "must be at most %d bytes of UTF-8", protocol.MaxMetadataValueBytes)
		}
	}
	return nil
}

func validateName(field, name string) *FieldError {
	if len(name) > protocol.MaxNameBytes || !validText(name, false) {
		return invalid(field, "must be at most %d bytes of UTF-8 without control characters", protocol.MaxNameBytes)
	}
	return nil
}

func validateTarget(field string, target uint64) *FieldError {
	if target == 0 {
		return invalid(field, "must be the seq of a message")
	}
	return nil
}

// levelOfText is the lowest level at which the text of a message or an edit may be admitted. Builds that know only level 1 refuse
// carriage returns.
func levelOfText(text string) Level {
	if strings.IndexByte(text, '\r') >= 0 {
		return carriageReturns
	}
	return MinLevel
}

// validText reports whether s is UTF-8 without control characters. If lines is true, s may contain tabs and line breaks.
// U+0085 is not a line break of plain text.
func validText(s string, lines bool) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if unicode.IsControl(r) && (!lines || (r != '\n' && r != '\r' && r != '\t')) {
			return false
		}
	}
	return true
}

func validKey(key string) bool {
	if len(key) == 0 || len(key) > protocol.MaxMetadataKeyBytes {
		return false
	}
	for i := range len(key) {
		if c := key[i]; c != '.' && !ValidUser(key[i:i+1]) {
			return false
		}
	}
	return true
}
