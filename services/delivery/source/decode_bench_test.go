package source_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/delivery/deliverytest"
	"github.com/runnelhq/runnel/services/delivery/source"
)

func BenchmarkDecode(b *testing.B) {
	payload, err := deliverytest.Command(string(conversation.GroupID("ann", ids.Command(deliverytest.CommandID(1)))), "ann", 2, deliverytest.Text("a message of a usual length, somewhat more than a few words")).MarshalVT()
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		e := source.Decode(1, 1e6, payload)
		_ = e
	}
}
