package source

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
)

// The planted bug drops exactly the unknown fields; what it cannot decode it leaves alone.
func TestDropUnknown(t *testing.T) {
	known, err := conversation.EncodeBody(&conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: "x"}}})
	require.NoError(t, err)
	require.Equal(t, known, dropUnknown(known))
	require.Equal(t, known, dropUnknown(protowire.AppendVarint(protowire.AppendTag(known, 1999, protowire.VarintType), 1)))
	require.Equal(t, []byte{0xff}, dropUnknown([]byte{0xff}))
}
