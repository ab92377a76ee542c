package rpc

import (
	"context"
	"net"

	"google.golang.org/grpc/credentials"

	"github.com/runnelhq/runnel/pkg/certs"
	"github.com/runnelhq/runnel/pkg/listen"
	"github.com/runnelhq/runnel/pkg/telemetry"
)

// mutual is TLS with authentication of both sides. It loads the certificates for each handshake. Therefore replacing the
// files also replaces the certificates of a running process.
type mutual struct {
	bundle *certs.Bundle
	// service is the role that a client requires of the server; empty on a server.
	service Role
}

var _ credentials.TransportCredentials = mutual{}

func (m mutual) ClientHandshake(ctx context.Context, _ string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	// The addresses behind a name change, so the client checks the role in the certificate, not the host that was
	// dialled.
	return credentials.NewTLS(m.bundle.ToService(string(m.service))).ClientHandshake(ctx, string(m.service), conn)
}

func (m mutual) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secured, info, err := credentials.NewTLS(m.bundle.ForServices()).ServerHandshake(conn)
	if err != nil {
		return nil, nil, err
	}
	authenticated(conn)
	return secured, info, nil
}

// trusting treats every caller as authenticated. It is for a server without TLS, which only trusted networks can reach.
type trusting struct {
	credentials.TransportCredentials
}

func (t trusting) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	authenticated(conn)
	return t.TransportCredentials.ServerHandshake(conn)
}

func (t trusting) Clone() credentials.TransportCredentials { return t }

// authenticated reports a successful handshake to the listener. If the connection was closed meanwhile, gRPC notices when
// it reads.
func authenticated(conn net.Conn) {
	if c := listen.Of(conn); c != nil {
		c.Authenticated()
	}
}

func (mutual) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (m mutual) Clone() credentials.TransportCredentials { return m }

// loadMutual loads the certificates for mutual TLS; it returns nil if none are configured.
func loadMutual(cfg certs.Config, tel *telemetry.Telemetry) (*certs.Bundle, error) {
	if wanted, err := cfg.Mutual(); err != nil || !wanted {
		return nil, err
	}
	return certs.Load(cfg, certs.Options{Use: "rpc", Log: tel.Log, Registerer: tel.Registry})
}

// OverrideServerName is deprecated in gRPC and has no effect here.
func (m mutual) OverrideServerName(string) error { return nil }
