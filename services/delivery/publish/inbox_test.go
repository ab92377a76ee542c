package publish

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestInboxesComeOutOfTheStreamAndAreChecked(t *testing.T) {
	for _, good := range []string{"gateway-1", "a.b", "x_Y"} {
		require.True(t, ValidInbox(good), good)
	}
	for _, bad := range []string{"", ".", "a.", ".a", "a..b", "a b", "a\r\nPUB x", "*", ">", "a.>", string(make([]byte, 201)), "é"} {
		require.False(t, ValidInbox(bad), bad)
	}
}
