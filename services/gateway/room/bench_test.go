package room

import (
	"testing"

	"github.com/stretchr/testify/require"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
)

// BenchmarkLiveEvent measures a live event until just before it is encoded.
func BenchmarkLiveEvent(b *testing.B) {
	data, err := (&brokerv1.Live{Events: branch(nil, 2, "a message of the usual length, which is not long")[1:]}).MarshalVT()
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		var live brokerv1.Live
		require.NoError(b, live.UnmarshalVT(data))
		_ = newEntries(live.GetEvents())
	}
}
