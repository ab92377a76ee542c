package gateway

import (
	"log/slog"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/protocol"
)

func TestSettingsThatWouldHangOrFloodAreRefused(t *testing.T) {
	for name, spoil := range map[string]func(*Config){
		"heartbeat":           func(c *Config) { c.Heartbeat = 0 },
		"revocation-interval": func(c *Config) { c.RevocationInterval = 0 },
		"history-timeout":     func(c *Config) { c.HistoryTimeout = -1 },
		"max-connections":     func(c *Config) { c.MaxConnections = 0 },
		"send-queue-bytes":    func(c *Config) { c.SendQueueBytes = -5 },
		"max-frame-bytes":     func(c *Config) { c.MaxFrameBytes = protocol.MaxConnectBytes - 1 },
	} {
		var cfg Config
		parser, err := kong.New(&cfg)
		require.NoError(t, err)
		_, err = parser.Parse(nil)
		require.NoError(t, err)
		require.NoError(t, cfg.validate(), "the defaults are valid")
		require.Equal(t, protocol.MaxFrameBytes, cfg.MaxFrameBytes, "the default frame size accepts every message that the protocol allows")
		spoil(&cfg)
		_, err = New(cfg, Deps{Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()})
		require.ErrorContains(t, err, "gateway."+name)
	}
}
