// Package chain computes and checks the hash chain of a conversation's log, so that whoever holds a stretch of it can tell
// that nothing in it was dropped, changed or reordered, even after content was erased from it.
//
// It never touches a network or a store, and it does not hash protobuf bytes: those differ between libraries. What is
// hashed is a canonical encoding of fields, each preceded by its length:
//
//	uint(n)   n as 8 bytes, big endian
//	bytes(b)  uint(len(b)), then b; text is its UTF-8 bytes
//	list(l)   uint(len(l)), then each element
//	map(m)    uint(len(m)), then bytes(key) bytes(value) by rising key, compared bytewise
//
//	content    = uint(kind) and the fields of the body, in the order of their proto numbers:
//	  created          uint(conversation kind) bytes(name) list(bytes(member))
//	  message          bytes(text) uint(reply_to) map(metadata)
//	  members_added    list(bytes(member))
//	  member_removed   bytes(member)
//	  member_left      nothing
//	  renamed          bytes(name)
//	commitment = SHA-256( bytes("runnel.content.v1") bytes(salt) content )
//	hash       = SHA-256( bytes("runnel.event.v1") bytes(conversation_id) uint(seq) uint(time_ms) bytes(sender)
//	                      bytes(command_id) uint(kind) bytes(commitment) bytes(prev_hash) )
//
// prev_hash of seq 1 is 32 zero bytes. Erasing an event removes its body and salt and keeps the commitment: the hash
// still verifies, and without the salt the commitment does not give away what the content was. The files in testdata/ are
// test vectors for other languages.
package chain

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

const (
	// Size is the length of a hash, a commitment and a prev_hash in bytes.
	Size = sha256.Size
	// SaltSize is the length of an event's salt in bytes.
	SaltSize = 16

	contentDomain = "runnel.content.v1"
	eventDomain   = "runnel.event.v1"
)

// Zero is the prev_hash of seq 1.
var Zero = make([]byte, Size)

// KindOf gives the event kind that a body leads to; EVENT_KIND_UNSPECIFIED for a body without an action.
func KindOf(body *conversationv1.Body) conversationv1.EventKind {
	switch body.GetAction().(type) {
	case *conversationv1.Body_Create:
		return conversationv1.EventKind_EVENT_KIND_CREATED
	case *conversationv1.Body_Message:
		return conversationv1.EventKind_EVENT_KIND_MESSAGE
	case *conversationv1.Body_AddMembers:
		return conversationv1.EventKind_EVENT_KIND_MEMBERS_ADDED
	case *conversationv1.Body_RemoveMember:
		return conversationv1.EventKind_EVENT_KIND_MEMBER_REMOVED
	case *conversationv1.Body_Leave:
		return conversationv1.EventKind_EVENT_KIND_MEMBER_LEFT
	case *conversationv1.Body_Rename:
		return conversationv1.EventKind_EVENT_KIND_RENAMED
	default:
		return conversationv1.EventKind_EVENT_KIND_UNSPECIFIED
	}
}

// AppendContent appends the canonical encoding of a body to dst.
func AppendContent(dst []byte, body *conversationv1.Body) []byte {
	dst = appendUint(dst, uint64(KindOf(body)))
	switch action := body.GetAction().(type) {
	case *conversationv1.Body_Create:
		dst = appendUint(dst, uint64(action.Create.GetKind()))
		dst = appendText(dst, action.Create.GetName())
		dst = appendList(dst, action.Create.GetMembers())
	case *conversationv1.Body_Message:
		dst = appendText(dst, action.Message.GetText())
		dst = appendUint(dst, action.Message.GetReplyTo())
		dst = appendMap(dst, action.Message.GetMetadata())
	case *conversationv1.Body_AddMembers:
		dst = appendList(dst, action.AddMembers.GetMembers())
	case *conversationv1.Body_RemoveMember:
		dst = appendText(dst, action.RemoveMember.GetMember())
	case *conversationv1.Body_Rename:
		dst = appendText(dst, action.Rename.GetName())
	}
	return dst
}

// Commitment is the salted commitment to a body.
func Commitment(salt []byte, body *conversationv1.Body) [Size]byte {
	var stack [512]byte
	buf := appendText(stack[:0], contentDomain)
	buf = appendBytes(buf, salt)
	buf = AppendContent(buf, body)
	return sha256.Sum256(buf)
}

// Hash is the hash of an event's header. It takes the commitment from salt and body, or the event's own commitment when
// the body was erased.
func Hash(event *conversationv1.Event) [Size]byte {
	commitment := event.GetCommitment()
	if event.GetBody() != nil {
		sum := Commitment(event.GetSalt(), event.GetBody())
		commitment = sum[:]
	}
	var stack [512]byte
	buf := appendText(stack[:0], eventDomain)
	buf = appendText(buf, event.GetConversationId())
	buf = appendUint(buf, event.GetSeq())
	buf = appendUint(buf, uint64(event.GetTimeMs()))
	buf = appendText(buf, event.GetSender())
	buf = appendText(buf, event.GetCommandId())
	buf = appendUint(buf, uint64(event.GetKind()))
	buf = appendBytes(buf, commitment)
	buf = appendBytes(buf, event.GetPrevHash())
	return sha256.Sum256(buf)
}

// Broken says which event does not verify, and why. It is the only error that this package returns.
type Broken struct {
	// ConversationID and Seq name the event at which the break shows.
	ConversationID string
	Seq            uint64
	// Reason is for a person.
	Reason string
}

func (b *Broken) Error() string {
	return fmt.Sprintf("conversation %s: seq %d: %s", b.ConversationID, b.Seq, b.Reason)
}

// Verifier checks a stretch of one conversation's log, event by event in rising order. The zero value accepts any event
// as the first and takes that event's prev_hash on trust, unless it is seq 1. It is not safe for concurrent use.
type Verifier struct {
	seq  uint64
	hash []byte
}

// From makes a verifier that continues after the event seq with that hash.
func From(seq uint64, hash []byte) *Verifier {
	return &Verifier{seq: seq, hash: hash}
}

// Next checks one more event. The error is a *Broken.
func (v *Verifier) Next(event *conversationv1.Event) error {
	if reason := v.check(event); reason != "" {
		return &Broken{ConversationID: event.GetConversationId(), Seq: event.GetSeq(), Reason: reason}
	}
	v.seq, v.hash = event.GetSeq(), event.GetHash()
	return nil
}

// Skip forgets the event before: the next one may have any seq and its prev_hash is taken on trust. It is for
// stretches that the reader may not see.
func (v *Verifier) Skip() { v.seq, v.hash = 0, nil }

// Seq is the last event that verified; 0 when there was none.
func (v *Verifier) Seq() uint64 { return v.seq }

// Hash is the hash of the last event that verified; nil when there was none.
func (v *Verifier) Hash() []byte { return v.hash }

func (v *Verifier) check(event *conversationv1.Event) string {
	if v.hash != nil && event.GetSeq() != v.seq+1 {
		return fmt.Sprintf("follows seq %d: an event was dropped, repeated or moved", v.seq)
	}
	if body := event.GetBody(); body != nil && KindOf(body) != event.GetKind() {
		return "its kind is not that of its body"
	}
	if event.GetBody() == nil && len(event.GetCommitment()) != Size {
		return "it has neither a body nor the commitment to an erased one"
	}
	if sum := Hash(event); !bytes.Equal(sum[:], event.GetHash()) {
		return "its hash does not match its fields: something in it was changed"
	}
	switch {
	case v.hash != nil && !bytes.Equal(event.GetPrevHash(), v.hash):
		return "its prev_hash is not the hash of the event before it"
	case event.GetSeq() == 1 && !bytes.Equal(event.GetPrevHash(), Zero):
		return "the first event's prev_hash is not zero"
	}
	return ""
}

func appendUint(dst []byte, n uint64) []byte { return binary.BigEndian.AppendUint64(dst, n) }

func appendBytes(dst, b []byte) []byte {
	return append(appendUint(dst, uint64(len(b))), b...)
}

func appendText(dst []byte, s string) []byte {
	return append(appendUint(dst, uint64(len(s))), s...)
}

func appendList(dst []byte, list []string) []byte {
	dst = appendUint(dst, uint64(len(list)))
	for _, s := range list {
		dst = appendText(dst, s)
	}
	return dst
}

func appendMap(dst []byte, m map[string]string) []byte {
	dst = appendUint(dst, uint64(len(m)))
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, strings.Compare)
	for _, k := range keys {
		dst = appendText(appendText(dst, k), m[k])
	}
	return dst
}
