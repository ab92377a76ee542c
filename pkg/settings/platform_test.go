package settings_test

import (
	"bytes"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/pkg/settings"
	"github.com/runnelhq/runnel/pkg/telemetry"
)

// The settings that every service shares, assembled like in a main function. set gives the address of the service.
func TestSharedSettings(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317")
	var cli struct {
		Telemetry telemetry.Config      `embed:"" prefix:"telemetry."`
		Admin     telemetry.AdminConfig `embed:"" prefix:"admin."`
		History   struct {
			RPC rpc.ServerConfig `embed:"" prefix:"rpc."`
		} `embed:"" prefix:"history." set:"rpc_listen=127.0.0.1:9002"`
		Auth auth.Config `embed:"" prefix:"auth."`
	}
	var out bytes.Buffer
	parser, err := settings.New("runnel-history", "", &cli, kong.Writers(&out, &out), kong.Exit(func(int) {}))
	require.NoError(t, err)
	_, err = parser.Parse([]string{"--print-config"})
	require.NoError(t, err)
	require.Equal(t, `telemetry:
    log-level: info
    log-format: text
    installation: ""
    otlp-endpoint: http://collector:4317
    sample-ratio: 0.1
admin:
    listen: 127.0.0.1:9090
    token: ""
    token-file: ""
    pprof: true
    max-sockets: 0
    request-timeout: 15s
history:
    rpc:
        listen: 127.0.0.1:9002
        tls:
            cert-file: ""
            key-file: ""
            ca-file: ""
        plaintext: false
        max-in-flight: 512
        stop-timeout: 5s
        max-sockets: 0
        handshake-timeout: 5s
auth:
    hmac-secret: ""
    hmac-secret-file: ""
    hmac-secret-previous: ""
    hmac-secret-previous-file: ""
    public-key-files: []
    jwks-file: ""
    jwks-url: ""
    jwks-allow-http: false
    jwks-refresh: 10s
    jwks-max-age: 10m0s
    audience: ""
    issuer: ""
    leeway: 30s
    allow-no-expiry: false
    max-lifetime: 0s
    token-types:
        - JWT
        - at+jwt
        - none
    user-claim: sub
    device-claim: ""
    name-claim: ""
`, out.String())
}
