package source

import (
	"google.golang.org/protobuf/proto"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
)

// dropUnknown re-encodes a body without the fields that this version does not know.
func dropUnknown(encoded []byte) []byte {
	body := &conversationv1.Body{}
	if (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(encoded, body) != nil {
		return encoded
	}
	known, err := conversation.EncodeBody(body)
	if err != nil {
		return encoded
	}
	return known
}
