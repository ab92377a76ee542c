package rpc

import (
	"context"
	"net"

	"google.golang.org/grpc/credentials"

	"github.com/runnelhq/runnel/pkg/certs"
	"github.com/runnelhq/runnel/pkg/telemetry"
)

// mutual is TLS in which both sides prove who they are. It asks for the certificates anew for each handshake, which is all
// it takes to replace them in a running process.
type mutual struct {
	bundle *certs.Bundle
	// service is the name that a client wants to see proved; a server has none.
	service Role
}

var _ credentials.TransportCredentials = mutual{}

func (m mutual) ClientHandshake(ctx context.Context, _ string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	// Addresses come and go behind a name, so what counts is not the host that was dialled but the role.
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
