package ledger

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A ledger that cannot be opened is noticed before an erasure needs it, and used again once it can.
func TestALedgerThatCannotBeOpenedIsNoticed(t *testing.T) {
	require.NoError(t, New("").Check(), "no ledger is set")
	dir := filepath.Join(t.TempDir(), "ledger")
	l := New(filepath.Join(dir, "erased"))
	require.ErrorContains(t, l.Check(), "erase ledger")
	require.NoError(t, os.Mkdir(dir, 0o700))
	for range 2 {
		require.NoError(t, l.Check())
	}
	require.NoError(t, l.Record([]Entry{{ConversationID: "g1"}}))
	require.NoError(t, l.Close())
}
