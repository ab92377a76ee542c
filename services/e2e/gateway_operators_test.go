package e2e_test

import (
	"context"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"

	"github.com/runnelhq/runnel/pkg/fleet"
)

// TestAllGatewaysCanBeAskedOverNATS asks as an admin's worker does, without an address.
func TestAllGatewaysCanBeAskedOverNATS(t *testing.T) {
	s := newStage(t, nil)
	s.commit(group("bob"))
	bob := s.login("bob")
	bob.seqs(1)
	asker := fleet.New(fleet.Config{NATS: s.nc, Service: "delivery", Instance: "asker", Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	done := make(chan error, 1)
	running, stop := context.WithCancel(ctx)
	go func() { done <- asker.Run(running) }()
	defer func() {
		stop()
		require.NoError(t, <-done)
	}()
	require.Eventually(t, func() bool { return len(asker.Members("gateway")) == 1 }, patience, patience/3000)
	answers, err := fleet.AskAll[gatewayv1.ExplainResponse](ctx, asker, "gateway", "Explain", &gatewayv1.ExplainRequest{
		UserId: "bob", ConversationId: s.id, Seq: 1,
	})
	require.NoError(t, err)
	require.Len(t, answers, 1)
	require.NoError(t, answers[0].Err)
	require.Equal(t, s.gw.ID(), answers[0].Instance)
	require.Equal(t, s.connectionID("bob"), answers[0].Response.GetTrails()[0].GetConnectionId())
	closed, err := fleet.AskOne[gatewayv1.DisconnectResponse](ctx, asker, s.gw.ID(), "gateway", "Disconnect", &gatewayv1.DisconnectRequest{UserId: "bob"})
	require.NoError(t, err)
	require.Equal(t, uint32(1), closed.GetClosed())
}
