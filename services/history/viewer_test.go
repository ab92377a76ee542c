package history

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/rpc"
)

// A gateway must name the user for whom it reads; workers and operators need not.
func TestAGatewayNamesTheUserForWhomItReads(t *testing.T) {
	as := func(roles ...string) context.Context {
		chain := []*x509.Certificate{{DNSNames: roles}}
		return peer.NewContext(t.Context(), &peer.Peer{AuthInfo: credentials.TLSInfo{State: tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{chain}}}})
	}
	for name, c := range map[string]struct {
		ctx  context.Context //nolint:containedctx // a case of a table
		free bool
	}{
		"gateway":              {as(string(rpc.RoleGateway)), false},
		"service":              {as(string(rpc.RoleService)), false},
		"delivery":             {as(string(rpc.RoleDelivery)), true},
		"admin":                {as(string(rpc.RoleAdmin)), true},
		"gateway and delivery": {as(string(rpc.RoleGateway), string(rpc.RoleDelivery)), true},
		"this process":         {t.Context(), true},
	} {
		t.Run(name, func(t *testing.T) {
			if err := checkViewer(c.ctx, ""); c.free {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, errNoViewer)
			}
			require.NoError(t, checkViewer(c.ctx, "ann"))
			require.NoError(t, checkRead(c.ctx, &historyv1.ReadRequest{ConversationId: "g00000000000000000000000000", Viewer: "ann"}))
			if !c.free {
				require.ErrorIs(t, checkRead(c.ctx, &historyv1.ReadRequest{ConversationId: "g00000000000000000000000000"}), errNoViewer)
			}
		})
	}
}
