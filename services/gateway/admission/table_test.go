package admission

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func key(i int) netip.Prefix {
	var address [4]byte
	binary.BigEndian.PutUint32(address[:], uint32(i))
	return netip.PrefixFrom(netip.AddrFrom4(address), 32)
}

// Attempts that are refused make no connection. Their addresses are remembered too, and bounded: the one whose last attempt was
// the longest ago is forgotten first.
func TestAddressesThatNeverGetInAreBounded(t *testing.T) {
	table := newTable(1, 1)
	for i := range maxIdle {
		table.peer(key(i))
	}
	require.Len(t, table.peers, maxIdle)
	table.peer(key(0)) // once more
	table.peer(key(maxIdle))
	require.Len(t, table.peers, maxIdle)
	require.Equal(t, maxIdle, table.idle.Len())
	require.NotContains(t, table.peers, key(1))
	require.Contains(t, table.peers, key(0))
	require.Contains(t, table.peers, key(maxIdle))
}
