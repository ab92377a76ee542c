package session

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"

	"github.com/runnelhq/runnel/pkg/protocol"
)

func TestConnectIsHeldToTheProtocolsLimits(t *testing.T) {
	positions := func(n int, position *clientv1.Position) []*clientv1.Position {
		all := make([]*clientv1.Position, n)
		for i := range all {
			all[i] = position
		}
		return all
	}
	good := &clientv1.Position{ConversationId: groupID, Seq: protocol.MaxSeq, Hash: make([]byte, protocol.HashPrefixBytes)}
	largest := func() *clientv1.Connect {
		return &clientv1.Connect{
			DeviceId: strings.Repeat("d", protocol.MaxIDBytes), Client: strings.Repeat("c", protocol.MaxClientNameBytes),
			Resume: positions(protocol.MaxResumePositions, good),
		}
	}
	field, rule := checkConnect(largest())
	require.Empty(t, field, rule)
	for want, spoil := range map[string]func(*clientv1.Connect){
		"device_id": func(c *clientv1.Connect) { c.DeviceId += "d" },
		"client":    func(c *clientv1.Connect) { c.Client += "c" },
		"resume":    func(c *clientv1.Connect) { c.Resume = positions(protocol.MaxResumePositions+1, good) },
		"resume[0].seq": func(c *clientv1.Connect) {
			c.Resume = positions(1, &clientv1.Position{ConversationId: groupID, Seq: protocol.MaxSeq + 1})
		},
		"resume[0].hash": func(c *clientv1.Connect) {
			c.Resume = positions(1, &clientv1.Position{ConversationId: groupID, Hash: make([]byte, protocol.HashPrefixBytes+1)})
		},
	} {
		request := largest()
		spoil(request)
		field, _ := checkConnect(request)
		require.Equal(t, want, field)
	}
}
