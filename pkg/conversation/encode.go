package conversation

import (
	"bytes"

	"google.golang.org/protobuf/proto"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// EncodeBody encodes a body in canonical form (see Body in the proto). Only the gateway that admits a command calls it;
// later parts forward the bytes unchanged. The body must not contain unknown fields.
func EncodeBody(body *conversationv1.Body) ([]byte, error) {
	if message := body.GetMessage(); message != nil && len(message.GetMetadata()) < 2 {
		return body.MarshalVT() // canonical if there is no map to sort, and three times as fast
	}
	return proto.MarshalOptions{Deterministic: true}.Marshal(body)
}

// DecodeBody decodes the body of a command or an event. Fields that this build does not know are kept in the message.
func DecodeBody(encoded []byte) (*conversationv1.Body, error) {
	body := &conversationv1.Body{}
	if err := body.UnmarshalVT(encoded); err != nil {
		return nil, err
	}
	return body, nil
}

// encode encodes a message of this package. It cannot fail, because the text was checked to be UTF-8.
func encode(message proto.Message) []byte {
	encoded, _ := proto.MarshalOptions{Deterministic: true}.Marshal(message)
	return encoded
}

// Conflicts reports whether a repeated command differs from the first one: both the bytes and the canonical encodings
// differ. There is no conflict if this build does not know all fields of both bodies, or if the first body is erased.
func Conflicts(first *conversationv1.Event, command *brokerv1.Command) bool {
	return len(first.GetBody()) > 0 && !SameBody(first.GetBody(), command.GetBody())
}

// SameBody reports whether two encoded bodies have the same content.
func SameBody(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	first, err := canonical(a)
	if err != nil || first == nil {
		return false
	}
	second, err := canonical(b)
	return err == nil && second != nil && bytes.Equal(first, second)
}

// canonical re-encodes a body; nil if it contains fields that this build does not know.
func canonical(encoded []byte) ([]byte, error) {
	body := &conversationv1.Body{}
	if err := proto.Unmarshal(encoded, body); err != nil {
		return nil, err
	}
	known := proto.UnmarshalOptions{DiscardUnknown: true}
	stripped := &conversationv1.Body{}
	if err := known.Unmarshal(encoded, stripped); err != nil || !proto.Equal(body, stripped) {
		return nil, err
	}
	return EncodeBody(body)
}
