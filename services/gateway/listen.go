package gateway

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/runnelhq/runnel/pkg/certs"
)

// listen opens the address that clients connect to, with TLS if there is a certificate.
func listen(cfg Config, log *slog.Logger, registerer prometheus.Registerer) (net.Listener, error) {
	var secured *tls.Config
	if files := cfg.TLS.Config(); !files.Empty() {
		bundle, err := certs.Load(files, certs.Options{Use: "clients", Log: log, Registerer: registerer})
		if err != nil {
			return nil, fmt.Errorf("listen for clients: %w", err)
		}
		secured = bundle.ForClients()
		secured.NextProtos = []string{"http/1.1"} // HTTP/2 has no WebSocket upgrade
	}
	listener, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for clients (--gateway.listen): %w", err)
	}
	if secured != nil {
		return tls.NewListener(listener, secured), nil
	}
	return listener, nil
}
