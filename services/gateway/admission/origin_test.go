package admission

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheClientsAddressComesFromTrustedProxiesOnly(t *testing.T) {
	for name, c := range map[string]struct {
		trusted   int
		forwarded []string
		want      string
	}{
		"no proxy":                            {0, nil, "192.0.2.9"},
		"a header without a configured proxy": {0, []string{"198.51.100.1"}, "192.0.2.9"},
		"one proxy":                           {1, []string{"198.51.100.1"}, "198.51.100.1"},
		"one proxy, and a forged hop":         {1, []string{"203.0.113.7, 198.51.100.1"}, "198.51.100.1"},
		"two proxies":                         {2, []string{"198.51.100.1, 10.0.0.1"}, "198.51.100.1"},
		"two proxies in two headers":          {2, []string{"203.0.113.7", "198.51.100.1, 10.0.0.1"}, "198.51.100.1"},
		"fewer hops than proxies":             {2, []string{"198.51.100.1"}, "192.0.2.9"},
		"a proxy that writes the port":        {1, []string{"198.51.100.1:4711"}, "198.51.100.1"},
		"IPv6":                                {1, []string{"2001:DB8::1"}, "2001:db8::1"},
		"IPv6 with a port":                    {1, []string{"[2001:db8::1]:4711"}, "2001:db8::1"},
		"IPv6 in brackets":                    {1, []string{"[2001:db8::1]"}, "2001:db8::1"},
		"a proxy that writes no address":      {1, []string{"unknown"}, "192.0.2.9"},
		"a proxy that forgets to write it":    {1, nil, "192.0.2.9"},
	} {
		t.Run(name, func(t *testing.T) {
			g := New(Config{TrustedProxies: c.trusted}, nil)
			r := httptest.NewRequest(http.MethodGet, "/v1/ws", nil)
			r.RemoteAddr, r.Header["X-Forwarded-For"] = "192.0.2.9:1234", c.forwarded
			require.Equal(t, c.want, g.Remote(r))
		})
	}
}

func TestOperatorsAreToldOfAProxyThatIsNotKnown(t *testing.T) {
	var log bytes.Buffer
	g := New(Config{Log: slog.New(slog.NewTextHandler(&log, nil))}, nil)
	plain := httptest.NewRequest(http.MethodGet, "/v1/ws", nil)
	g.suspectProxy(plain)
	require.Empty(t, log.String())
	forwarded := httptest.NewRequest(http.MethodGet, "/v1/ws", nil)
	forwarded.Header.Set("X-Forwarded-For", "198.51.100.1")
	for range 3 {
		g.suspectProxy(forwarded)
	}
	require.Equal(t, 3, strings.Count(log.String(), "--gateway.trusted-proxies"), "telemetry limits the lines")

	log.Reset()
	known := New(Config{TrustedProxies: 1, Log: slog.New(slog.NewTextHandler(&log, nil))}, nil)
	known.suspectProxy(forwarded)
	require.Empty(t, log.String(), "it is configured")
}

// A limit of one address may be that of a proxy; one of the gateway is not.
func TestAProxyIsSuspectedWhenAnAddressIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  Config
		want int
	}{
		"a limit of one address": {Config{MaxConnectionsPerIP: 1}, 1},
		"a limit of the gateway": {Config{MaxConnections: 1}, 0},
	} {
		var log bytes.Buffer
		g := newGate(c.cfg)
		g.cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
		require.Nil(t, attempt(g, same(0)))
		forwarded := httptest.NewRequest(http.MethodGet, "/v1/ws", nil)
		forwarded.Header.Set("X-Forwarded-For", "198.51.100.1")
		_, refusal := g.Admit(forwarded, same(1))
		require.NotNil(t, refusal, name)
		require.Equal(t, c.want, strings.Count(log.String(), "--gateway.trusted-proxies"), name)
	}
}

func TestASettingThatMatchesNoOriginIsRefused(t *testing.T) {
	for _, origin := range []string{"*", "https://chat.example.com", "http://localhost:3000", "https://[::1]:8443", "app://electron", "http://a:443", "https://a:80"} {
		require.NoError(t, CheckOrigin(origin))
	}
	for _, origin := range []string{
		"", " https://chat.example.com", "https://chat.example.com/", "https://chat.example.com/chat", "https://*.example.com",
		"chat.example.com", "chat.example.com:443", "//chat.example.com", "https://", "https://chat.example.com:443", "http://a:80",
		"https://user@chat.example.com", "https://chat.example.com?x", "https://chat.example.com https://b.example.com", "%", "null",
	} {
		require.Error(t, CheckOrigin(origin), origin)
	}
}

// Whoever can change a page that is not encrypted could otherwise use its visitors' sessions.
func TestAPageWithoutTLSIsAnotherSite(t *testing.T) {
	g := New(Config{}, nil)
	for origin, want := range map[string]bool{"https://chat.example.com": true, "http://chat.example.com": false} {
		r := httptest.NewRequest(http.MethodGet, "https://chat.example.com/v1/ws", nil) // with TLS
		r.Header.Set("Origin", origin)
		require.Equal(t, want, g.OriginAllowed(r))
	}
}

func TestPagesOfOtherSitesMayNotConnect(t *testing.T) {
	for name, c := range map[string]struct {
		allowed []string
		origin  string
		want    bool
	}{
		"no browser":               {nil, "", true},
		"the gateway's own host":   {nil, "https://chat.example.com", true},
		"its host in capitals":     {nil, "https://CHAT.example.com", true},
		"its host, without TLS":    {nil, "http://chat.example.com", true},
		"another host":             {nil, "https://evil.example.com", false},
		"one that is allowed":      {[]string{"https://app.example.com"}, "https://app.example.com", true},
		"one beside it":            {[]string{"https://app.example.com"}, "https://app.example.com.evil.com", false},
		"another scheme":           {[]string{"https://app.example.com"}, "http://app.example.com", false},
		"any":                      {[]string{"*"}, "https://evil.example.com", true},
		"what is no URL":           {nil, "%", false},
		"a page without an origin": {nil, "null", false},
	} {
		t.Run(name, func(t *testing.T) {
			g := New(Config{AllowedOrigins: c.allowed}, nil)
			r := httptest.NewRequest(http.MethodGet, "http://chat.example.com/v1/ws", nil)
			if c.origin != "" {
				r.Header.Set("Origin", c.origin)
			}
			require.Equal(t, c.want, g.OriginAllowed(r))
		})
	}
}
