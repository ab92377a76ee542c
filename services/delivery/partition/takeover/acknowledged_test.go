package takeover

import (
	"testing"

	"github.com/stretchr/testify/require"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

func TestBefore(t *testing.T) {
	at := func(epoch, sequence uint64) *historyv1.Watermark {
		return &historyv1.Watermark{Epoch: epoch, Sequence: sequence}
	}
	require.True(t, Before(at(1, 9), at(2, 1)))
	require.True(t, Before(at(1, 8), at(1, 9)))
	require.False(t, Before(at(1, 9), at(1, 9)))
	require.False(t, Before(at(2, 1), at(1, 9)))
	require.False(t, Before(at(1, 1), nil))
}
