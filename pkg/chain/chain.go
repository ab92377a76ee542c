// Package chain computes and checks the hash chain of a conversation's log. A reader that holds a stretch of the log can
// check that no event in it was dropped, changed or reordered, even after content was erased from it.
//
// It never touches a network or a store, and it never decodes or encodes a body: the body is hashed as the bytes that were
// admitted, so a body with fields that this build does not know verifies like any other. Each part is preceded by its length:
//
//	uint(n)   n as 8 bytes, big endian
//	bytes(b)  uint(len(b)), then b; text is its UTF-8 bytes
//
//	commitment = SHA-256( bytes("runnel.content.v2") bytes(salt) bytes(body) )
//	hash       = SHA-256( bytes("runnel.event.v2") uint(format) bytes(conversation_id) uint(seq) uint(time_ms) bytes(sender)
//	                      bytes(command_id) uint(kind) bytes(commitment) bytes(prev_hash) bytes(header_extra) )
//
// This is format 2, the only format so far. prev_hash of seq 1 is 32 zero bytes. Erasing an event removes its body and salt and
// keeps the commitment: the hash still verifies, and without the salt the commitment does not reveal the content. The files
// in testdata/ are test vectors for other languages; testdata/README.md describes them.
package chain

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/protocol"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

const (
	// Format is the format of the events that this build creates.
	Format = 2
	// Size is the length of a hash, a commitment and a prev_hash in bytes.
	Size = sha256.Size
	// SaltSize is the length in bytes of the salts that gateways create. Salts of MinSaltSize to MaxSaltSize are
	// accepted.
	SaltSize = 16
	// MinSaltSize is the shortest salt of an event, in bytes.
	MinSaltSize = 16
	// MaxSaltSize is the longest salt of an event, in bytes.
	MaxSaltSize = 32
	// PrefixSize is the length in bytes of the part of a hash that a client sends with its resume position.
	PrefixSize = protocol.HashPrefixBytes

	contentDomain = "runnel.content.v2"
	eventDomain   = "runnel.event.v2"
)

// Zero is the prev_hash of seq 1. It must not be written to.
var Zero = make([]byte, Size)

// Content is the result of checking the content of an event whose place in the log was verified.
type Content uint8

const (
	// Verified means that the content matches the event's commitment.
	Verified Content = iota
	// NotChecked means that the content was not checked: the event was received without the bytes of its body, or has a
	// format that this build does not know.
	NotChecked
	// Erased means that the content was erased: the event has a commitment, but neither body nor salt.
	Erased
)

// String returns the name of the result for logs and tables.
func (c Content) String() string {
	switch c {
	case Verified:
		return "content verified"
	case NotChecked:
		return "content not checked"
	default:
		return "erased"
	}
}

// NewSalt makes a random salt for one event.
func NewSalt() []byte {
	salt := make([]byte, SaltSize)
	_, _ = rand.Read(salt) // never fails
	return salt
}

// Commitment returns the salted commitment to the bytes of a body.
func Commitment(salt, body []byte) [Size]byte {
	var stack [512]byte
	buf := appendText(stack[:0], contentDomain)
	buf = appendBytes(buf, salt)
	buf = appendBytes(buf, body)
	return sha256.Sum256(buf)
}

// Hash returns the hash of an event's header. It uses the event's commitment and does not read body and salt.
func Hash(event *conversationv1.Event) [Size]byte {
	var stack [512]byte
	buf := appendText(stack[:0], eventDomain)
	buf = appendUint(buf, uint64(event.GetFormat()))
	buf = appendText(buf, event.GetConversationId())
	buf = appendUint(buf, event.GetSeq())
	buf = appendUint(buf, uint64(event.GetTimeMs()))
	buf = appendText(buf, event.GetSender())
	buf = appendText(buf, event.GetCommandId())
	buf = appendUint(buf, uint64(event.GetKind()))
	buf = appendBytes(buf, event.GetCommitment())
	buf = appendBytes(buf, event.GetPrevHash())
	buf = appendBytes(buf, event.GetHeaderExtra())
	return sha256.Sum256(buf)
}

// Seal sets format, commitment and hash of a new event. All other fields must be set.
func Seal(event *conversationv1.Event) {
	var sums [2 * Size]byte // one allocation for both
	commitment := Commitment(event.GetSalt(), event.GetBody())
	copy(sums[:], commitment[:])
	event.Format, event.Commitment = Format, sums[:Size:Size]
	hash := Hash(event)
	copy(sums[Size:], hash[:])
	event.Hash = sums[Size:]
}

// Erase removes body and salt of an event and keeps its commitment.
func Erase(event *conversationv1.Event) { event.Body, event.Salt = nil, nil }

// Broken describes which event does not verify, and why. It is the only error type of this package.
type Broken struct {
	// ConversationID and Seq identify the event at which the fault was found.
	ConversationID ids.Conversation
	Seq            ids.Seq
	// Reason describes the fault for people.
	Reason string
}

func (b *Broken) Error() string {
	return fmt.Sprintf("conversation %s: seq %d: %s", b.ConversationID, b.Seq, b.Reason)
}

// Verifier checks a stretch of one conversation's log, event by event in rising order. The zero value accepts any event
// as the first. It trusts the prev_hash of that event, unless the event has seq 1. It is not safe for concurrent use.
type Verifier struct {
	// HeadersOnly accepts events with a salt but without the bytes of their body; their content is NotChecked. A JSON
	// client that did not request the bytes receives such events. Without HeadersOnly, such an event is Broken.
	HeadersOnly bool

	seq    ids.Seq
	hash   []byte
	format uint32
}

// From makes a verifier that continues after the event seq with this hash.
func From(seq ids.Seq, hash []byte) *Verifier {
	return &Verifier{seq: seq, hash: hash}
}

// Next checks one more event. The error is a *Broken. An event with a format that this build does not know is NotChecked,
// not broken: its own hash is trusted, and the next event must contain this hash.
func (v *Verifier) Next(event *conversationv1.Event) (Content, error) {
	content, reason := v.check(event)
	if reason != "" {
		return content, &Broken{ConversationID: ids.Conversation(event.GetConversationId()), Seq: ids.Seq(event.GetSeq()), Reason: reason}
	}
	v.seq, v.hash, v.format = ids.Seq(event.GetSeq()), event.GetHash(), event.GetFormat()
	return content, nil
}

// Skip makes the verifier forget the previous event: the next event may have any seq, and its prev_hash is trusted. Use
// it for stretches that the reader may not see.
func (v *Verifier) Skip() { v.seq, v.hash = 0, nil }

// Seq returns the seq of the last event that verified; 0 if there was none.
func (v *Verifier) Seq() ids.Seq { return v.seq }

// Hash returns the hash of the last event that verified; nil if there was none.
func (v *Verifier) Hash() []byte { return v.hash }

// check returns the result for an event's content, and the reason why the event's place does not verify; empty if it
// does.
func (v *Verifier) check(event *conversationv1.Event) (Content, string) {
	switch {
	case v.hash != nil && ids.Seq(event.GetSeq()) != v.seq+1:
		return NotChecked, fmt.Sprintf("follows seq %d: an event was dropped, repeated or moved", v.seq)
	case event.GetFormat() < Format:
		return NotChecked, "its format does not exist"
	case event.GetFormat() < v.format:
		return NotChecked, "its format is lower than that of the event before it"
	case v.hash != nil && !bytes.Equal(event.GetPrevHash(), v.hash):
		return NotChecked, "its prev_hash is not the hash of the event before it"
	case event.GetFormat() > Format:
		if len(event.GetHash()) == 0 {
			return NotChecked, "it has no hash"
		}
		return NotChecked, ""
	}
	if reason := v.checkHeader(event); reason != "" {
		return NotChecked, reason
	}
	return v.checkContent(event)
}

func (v *Verifier) checkHeader(event *conversationv1.Event) string {
	switch {
	case len(event.GetCommitment()) != Size:
		return "it has no commitment to its content"
	case len(event.GetPrevHash()) != Size:
		return "its prev_hash does not have 32 bytes"
	case event.GetSeq() == 1 && !bytes.Equal(event.GetPrevHash(), Zero):
		return "the first event's prev_hash is not zero"
	}
	if sum := Hash(event); !bytes.Equal(sum[:], event.GetHash()) {
		return "its hash does not match its fields: something in it was changed"
	}
	return ""
}

func (v *Verifier) checkContent(event *conversationv1.Event) (Content, string) {
	body, salt := event.GetBody(), event.GetSalt()
	switch {
	case len(body) == 0 && len(salt) == 0 && IsStructure(event.GetKind()):
		return NotChecked, "it has no content, and an event of its kind cannot be erased"
	case len(body) == 0 && len(salt) == 0:
		return Erased, ""
	case len(body) == 0 && v.HeadersOnly:
		return NotChecked, ""
	case len(body) == 0:
		return NotChecked, "it has a salt and no body: its content was removed without erasing it"
	case len(salt) < MinSaltSize || len(salt) > MaxSaltSize:
		return NotChecked, "its salt does not have 16 to 32 bytes"
	}
	if sum := Commitment(salt, body); !bytes.Equal(sum[:], event.GetCommitment()) {
		return NotChecked, "its content does not match its commitment: the content was changed"
	}
	return Verified, ""
}

func appendUint(dst []byte, n uint64) []byte { return binary.BigEndian.AppendUint64(dst, n) }

func appendBytes(dst, b []byte) []byte {
	return append(appendUint(dst, uint64(len(b))), b...)
}

func appendText(dst []byte, s string) []byte {
	return append(appendUint(dst, uint64(len(s))), s...)
}
