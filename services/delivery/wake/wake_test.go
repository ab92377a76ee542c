package wake

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func raised(s Signal) bool {
	select {
	case <-s:
		return true
	default:
		return false
	}
}

// Several raises are received once; none is received without a raise, or after a clear.
func TestSignal(t *testing.T) {
	s := NewSignal()
	require.False(t, raised(s))
	s.Raise()
	s.Raise()
	require.True(t, raised(s))
	require.False(t, raised(s))
	s.Raise()
	s.Clear()
	require.False(t, raised(s))
	s.Clear() // nothing to withdraw: it does not block
	s.Raise()
	require.True(t, raised(s), "it works again after a clear")
}
