package conversation

import (
	"crypto/sha256"
	"encoding/base32"
	"hash/fnv"
	"strings"

	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/protocol"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

const directPrefix, groupPrefix = 'd', 'g'

// idEncoding encodes 128 bits in 26 digits 0-9 a-v. The digits are safe in a NATS subject, a URL and a file name.
var idEncoding = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

// DirectID returns the id of the direct conversation of two users. The id is computed from the user ids, so each pair has
// exactly one direct conversation.
func DirectID(a, b ids.User) ids.Conversation {
	if a > b {
		a, b = b, a
	}
	return makeID(directPrefix, "runnel.direct.v1", string(a), string(b))
}

// GroupID returns the id of the group that this create command makes. The id is computed from the sender and the command
// id, so a repeated create reaches the same partition and finds its first outcome, and no client can choose an id.
func GroupID(sender ids.User, commandID ids.Command) ids.Conversation {
	return makeID(groupPrefix, "runnel.group.v1", string(sender), string(commandID))
}

// The parts contain no NUL (ValidUser, ValidCommandID), so joining by NUL is unambiguous.
func makeID(prefix byte, parts ...string) ids.Conversation {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return ids.Conversation(string(prefix) + idEncoding.EncodeToString(sum[:16]))
}

// ValidID reports whether s has the form of a conversation id: a letter a-z and 26 digits 0-9 a-v. All parts of Runnel
// accept such ids; only gateways use the stricter AdmissibleID.
func ValidID(s string) bool {
	if len(s) != protocol.ConversationIDBytes || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	for i := 1; i < len(s); i++ {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'v') {
			return false
		}
	}
	return true
}

// AdmissibleID reports whether s is the id of a conversation that this build can create: d or g and 26 digits 0-9 a-v.
func AdmissibleID(s string) bool {
	return ValidID(s) && (s[0] == directPrefix || s[0] == groupPrefix)
}

// KindOfID returns the kind of the conversation with a valid id; KIND_UNSPECIFIED if this build cannot create such a conversation.
func KindOfID(id ids.Conversation) conversationv1.Kind {
	switch id[0] {
	case directPrefix:
		return conversationv1.Kind_KIND_DIRECT
	case groupPrefix:
		return conversationv1.Kind_KIND_GROUP
	default:
		return conversationv1.Kind_KIND_UNSPECIFIED
	}
}

// Before returns the valid id that sorts directly before a valid id: a keyset page after the result begins with the id
// itself. The lowest id has no predecessor and is returned unchanged.
func Before(id ids.Conversation) ids.Conversation {
	digits := []byte(id)
	for i := len(digits) - 1; i > 0; i-- {
		switch digits[i] {
		case '0':
			digits[i] = 'v' // borrow from the previous digit
			continue
		case 'a':
			digits[i] = '9'
		default:
			digits[i]--
		}
		return ids.Conversation(digits)
	}
	if id[0] == 'a' {
		return id
	}
	digits[0]--
	return ids.Conversation(digits)
}

// ValidCommandID reports whether s is a UUID in canonical lower-case form (RFC 9562, section 4). All parts of Runnel
// accept such ids; only gateways use the stricter AdmissibleCommandID.
func ValidCommandID(s string) bool {
	if len(s) != protocol.CommandIDBytes {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if c != '-' {
				return false
			}
		} else if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// AdmissibleCommandID reports whether s is a UUID version 7 in canonical lower-case form (RFC 9562, section 5.7).
func AdmissibleCommandID(s string) bool {
	return ValidCommandID(s) && s[14] == '7' && strings.IndexByte("89ab", s[19]) >= 0
}

// ValidSender reports whether s can be the sender of a command: a user, or ServerUser.
func ValidSender(s string) bool { return ValidUser(s) || ids.User(s) == ServerUser }

// Partition returns the partition of a conversation if there are n partitions. It must never change for an existing
// installation, because all commands of a conversation must go through one stream.
func Partition(id ids.Conversation, n int) ids.Partition {
	h := fnv.New32a()
	_, _ = h.Write([]byte(id))
	return ids.Partition(h.Sum32() % uint32(n))
}

// CreateID returns the id of the conversation that a valid create command makes.
func CreateID(sender ids.User, commandID ids.Command, create *conversationv1.Create) ids.Conversation {
	if create.GetKind() == conversationv1.Kind_KIND_DIRECT {
		return DirectID(sender, ids.User(create.GetMembers()[0]))
	}
	return GroupID(sender, commandID)
}
