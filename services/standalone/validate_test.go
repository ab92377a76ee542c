package standalone

import (
	"path/filepath"
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/telemetry"
)

// numbers calls visit for every number among the settings, nested ones included.
func numbers(value reflect.Value, name string, visit func(name string, number reflect.Value)) {
	for i := range value.NumField() {
		field, part := value.Type().Field(i), value.Field(i)
		switch {
		case part.Kind() == reflect.Struct:
			numbers(part, name+field.Name+".", visit)
		case part.CanInt() || part.CanFloat():
			visit(name+field.Name, part)
		}
	}
}

// Every number has a range, and a value outside it is refused before anything is created.
func TestABadSettingLeavesNoDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	cfg := configure(t, dir)
	tried := 0
	numbers(reflect.ValueOf(&cfg).Elem(), "", func(name string, number reflect.Value) {
		before := reflect.New(number.Type()).Elem()
		before.Set(number)
		defer number.Set(before)
		if number.CanInt() {
			number.SetInt(-1 << 40)
		} else {
			number.SetFloat(-1)
		}
		_, err := New(t.Context(), cfg, telemetry.Discard())
		require.ErrorContains(t, err, "settings: ", name)
		require.NoDirExists(t, dir, name)
		tried++
	})
	require.Greater(t, tried, 50, "the walk finds the settings")
}

func TestBadTextsLeaveNoDirectory(t *testing.T) {
	for want, spoil := range map[string]func(*Config){
		"gateway.allowed-origins":     func(c *Config) { c.Gateway.AllowedOrigins = []string{"chat.example.com"} },
		"gateway.tls":                 func(c *Config) { c.Gateway.TLS.CertFile, c.Gateway.TLS.KeyFile = "none.pem", "none.pem" },
		"gateway.proxy-protocol-from": func(c *Config) { c.Gateway.ProxyProtocolFrom = []string{"x"} },
		"rpc.plaintext":               func(c *Config) { c.RPC.Listen = ":9000" },
		"rpc.tls":                     func(c *Config) { c.RPC.TLS.CertFile = "none.pem" },
		"there is no token":           func(c *Config) { c.Admin.Listen = "0.0.0.0:9090" },
		"at least 16":                 func(c *Config) { c.Admin.Token = "short" },
		"nats.tls":                    func(c *Config) { c.NATS.TLS.CAFile = "none.pem" },
		"must be sqlite:PATH":         func(c *Config) { c.History.Database = "mysql://host" },
		"telemetry.otlp-endpoint":     func(c *Config) { c.Telemetry.OTLPEndpoint = "collector" },
		"set up authentication":       func(c *Config) { c.Auth.PublicKeyFiles = []string{"none.pem"} },
		"auth settings":               func(c *Config) { c.Auth.HMACSecretPrevious = "former" },
	} {
		dir := filepath.Join(t.TempDir(), "data")
		cfg := configure(t, dir)
		spoil(&cfg)
		_, err := New(t.Context(), cfg, telemetry.Discard())
		require.ErrorContains(t, err, want)
		require.NoDirExists(t, dir, want)
	}
}
