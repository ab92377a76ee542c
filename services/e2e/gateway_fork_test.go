package e2e_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"

	"github.com/runnelhq/runnel/pkg/chain"
)

// A client that was told of a fork gets nothing more of the conversation, so nothing of it is kept for that client.
func TestAForkedClientLeavesNoRoomBehind(t *testing.T) {
	s := newStage(t, nil)
	s.commit(group("bob"))
	bob := s.login("bob", &clientv1.Position{ConversationId: s.id, Seq: 9, Hash: make([]byte, chain.PrefixSize)})
	bob.until(func(f *clientv1.ServerFrame) bool { return f.GetForked() != nil })
	require.NoError(t, bob.ws.Close())
	require.Eventually(t, func() bool {
		return s.counter("runnel_gateway_connections") == 0 && s.counter("runnel_gateway_rooms") == 0
	}, patience/3, patience/3000)
}
