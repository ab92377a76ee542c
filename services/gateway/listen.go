package gateway

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/runnelhq/runnel/pkg/certs"
	"github.com/runnelhq/runnel/pkg/listen"
)

// openListener opens the address that clients connect to, with TLS if there is a certificate.
func openListener(cfg Config, deps Deps) (net.Listener, error) {
	log, registerer := deps.Log, deps.Registerer
	var secured *tls.Config
	if files := cfg.TLS.Config(); !files.Empty() {
		bundle, err := certs.Load(files, certs.Options{Use: "clients", Log: log, Registerer: registerer})
		if err != nil {
			return nil, fmt.Errorf("listen for clients: %w", err)
		}
		secured = bundle.ForClients()
		secured.NextProtos = []string{"http/1.1"} // HTTP/2 has no WebSocket upgrade
	}
	limits, err := limits(cfg, log, registerer)
	if err != nil {
		return nil, err
	}
	listener, err := limited(deps.Listener, limits)
	if err != nil {
		return nil, fmt.Errorf("listen for clients (--gateway.listen): %w", err)
	}
	warnOfDescriptors(cfg, limits.MaxSockets, listen.Descriptors(), log)
	if secured != nil {
		return tls.NewListener(listener, secured), nil
	}
	return listener, nil
}

// limited puts limits on the listener inner. If inner is nil, it opens the address that the limits name.
func limited(inner net.Listener, limits listen.Config) (*listen.Listener, error) {
	if inner == nil {
		return listen.Open(limits) //nolint:wrapcheck // the caller names the setting
	}
	return listen.New(inner, limits) //nolint:wrapcheck // the caller names the setting
}

// limits returns the limits of the listener for clients.
func limits(cfg Config, log *slog.Logger, registerer prometheus.Registerer) (listen.Config, error) {
	sockets, err := listen.MaxSockets(listen.ForClients, cfg.MaxSockets)
	if err != nil {
		return listen.Config{}, fmt.Errorf("gateway.%w", err)
	}
	proxies, err := cfg.proxies()
	if err != nil {
		return listen.Config{}, err
	}
	limits := listen.Config{
		Name: "gateway", Address: cfg.Listen, MaxSockets: sockets, Timeout: cfg.AuthenticationTimeout,
		MaxUnauthenticated: cfg.MaxUnauthenticated, MaxPerAddress: cfg.MaxUnauthenticatedPerIP, MaxPerNetwork: cfg.MaxUnauthenticatedPerNetwork,
		ProxiesFrom: proxies, Log: log, Registerer: registerer,
	}
	if cfg.TrustedProxies > 0 { // behind proxies all sockets come from a few addresses
		limits.MaxPerAddress, limits.MaxPerNetwork = 0, 0
	}
	return limits, nil
}

// warnOfDescriptors tells the operator when the gateway cannot have as many connections as it is configured for.
func warnOfDescriptors(cfg Config, sockets, descriptors int, log *slog.Logger) {
	if cfg.MaxConnections > sockets || sockets > descriptors {
		log.Warn("the descriptor limit does not allow gateway.max-connections; raise it (ulimit -n, LimitNOFILE of systemd), or lower the setting",
			"max-connections", cfg.MaxConnections, "ulimit -n", descriptors, "max-sockets", sockets)
	}
}
