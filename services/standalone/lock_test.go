package standalone

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestADataDirectoryHasOneUser(t *testing.T) {
	dir := t.TempDir()
	first, err := lockDir(dir)
	require.NoError(t, err)
	_, err = lockDir(dir)
	require.ErrorContains(t, err, "in use by another runnel")
	require.NoError(t, first.Close())
	again, err := lockDir(dir)
	require.NoError(t, err)
	require.NoError(t, again.Close())
}
