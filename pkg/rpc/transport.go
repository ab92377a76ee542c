package rpc

import (
	"context"
	"net"

	"google.golang.org/grpc/credentials"

	"github.com/runnelhq/runnel/pkg/certs"
	"github.com/runnelhq/runnel/pkg/telemetry"
)

// mutual is TLS in which both sides authenticate. It loads the certificates for each handshake, so replacing the files is enough
// to replace them in a running process.
type mutual struct {
	bundle *certs.Bundle
	// service is the role that a client requires of the server; a server requires none.
	service Role
}

var _ credentials.TransportCredentials = mutual{}

func (m mutual) ClientHandshake(ctx context.Context, _ string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	// Addresses behind a name change, so the client checks the role, not the host that was dialled.
	return credentials.NewTLS(m.bundle.ToService(string(m.service))).ClientHandshake(ctx, string(m.service), conn)
}

func (m mutual) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return credentials.NewTLS(m.bundle.ForServices()).ServerHandshake(conn)
}

func (mutual) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (m mutual) Clone() credentials.TransportCredentials { return m }

// loadMutual loads the certificates for mutual TLS; nil without a setting.
func loadMutual(cfg certs.Config, tel *telemetry.Telemetry) (*certs.Bundle, error) {
	if wanted, err := cfg.Mutual(); err != nil || !wanted {
		return nil, err
	}
	return certs.Load(cfg, certs.Options{Use: "rpc", Log: tel.Log, Registerer: tel.Registry})
}

// OverrideServerName is deprecated in gRPC and does nothing here.
func (m mutual) OverrideServerName(string) error { return nil }
