package conversation

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/ids"
)

// Ids are checked character by character.
func TestIDs(t *testing.T) {
	id := string(DirectID("ann", "bob"))
	require.Equal(t, id, string(DirectID("bob", "ann")), "of two users, in either order")
	require.NotEqual(t, id, string(DirectID("ann", "cem")))
	require.True(t, ValidID(id))
	require.False(t, ValidID(id[:len(id)-1]))
	require.False(t, ValidID(id+"0"))
	for _, valid := range "09av" {
		require.True(t, ValidID(id[:5]+string(valid)+id[6:]), string(valid))
		require.True(t, ValidID(id[:len(id)-1]+string(valid)), string(valid))
	}
	for _, wrong := range "/:`w{A.*>" {
		require.False(t, ValidID(id[:5]+string(wrong)+id[6:]), string(wrong))
		require.False(t, ValidID(id[:len(id)-1]+string(wrong)), string(wrong))
	}
	for letter, want := range map[string]bool{"a": true, "z": true, "`": false, "{": false, "0": false} {
		require.Equal(t, want, ValidID(letter+id[1:]), letter)
		require.False(t, AdmissibleID("a"+id[1:]))
	}
	require.True(t, AdmissibleID(id))
	require.True(t, AdmissibleID(string(GroupID("ann", "x"))))
	command := "0192f3c0-0000-7000-8000-000000000001"
	require.True(t, ValidCommandID(command))
	for at := range command {
		for _, c := range "09af/:`gA-" {
			want := (c == '-') == (command[at] == '-') && (c == '-' || c >= '0' && c <= '9' || c >= 'a' && c <= 'f')
			require.Equal(t, want, ValidCommandID(command[:at]+string(c)+command[at+1:]), "%c at %d", c, at)
		}
	}
	require.False(t, ValidCommandID(command+"0"))
	require.True(t, ValidSender("ann"))
	require.True(t, ValidSender(string(ServerUser)))
	require.False(t, ValidSender("a b"))
	for _, short := range []string{"", "d", "g"} {
		require.False(t, AdmissibleID(short), "%q", short)
		require.False(t, AdmissibleCommandID(short), "%q", short)
	}
}

// Ids and partitions that follow from others must never change: stored conversations would not be found again.
func TestIDsThatFollowFromOthersStayTheSame(t *testing.T) {
	require.Equal(t, ids.Conversation("dnu0hnj4sued21s8l90ntc14v4c"), DirectID("ann", "bob"))
	require.Equal(t, ids.Conversation("gn08l0062bs2vti1m79i57add5c"), GroupID("ann", "0192f3c0-0000-7000-8000-000000000001"))
	require.Equal(t, ids.Partition(8), Partition("d0123456789abcdefghijklmnop", 16))
}
