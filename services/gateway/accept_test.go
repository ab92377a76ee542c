package gateway

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"
)

func TestTheClientsAddressComesFromTrustedProxiesOnly(t *testing.T) {
	for name, c := range map[string]struct {
		trusted   int
		forwarded []string
		want      string
	}{
		"no proxy":                         {0, nil, "192.0.2.9"},
		"a header that nobody asked for":   {0, []string{"198.51.100.1"}, "192.0.2.9"},
		"one proxy":                        {1, []string{"198.51.100.1"}, "198.51.100.1"},
		"one proxy, and a forged hop":      {1, []string{"203.0.113.7, 198.51.100.1"}, "198.51.100.1"},
		"two proxies":                      {2, []string{"198.51.100.1, 10.0.0.1"}, "198.51.100.1"},
		"two proxies in two headers":       {2, []string{"203.0.113.7", "198.51.100.1, 10.0.0.1"}, "198.51.100.1"},
		"fewer hops than proxies":          {2, []string{"198.51.100.1"}, "192.0.2.9"},
		"a proxy that writes the port":     {1, []string{"198.51.100.1:4711"}, "198.51.100.1"},
		"IPv6":                             {1, []string{"2001:DB8::1"}, "2001:db8::1"},
		"IPv6 with a port":                 {1, []string{"[2001:db8::1]:4711"}, "2001:db8::1"},
		"IPv6 in brackets":                 {1, []string{"[2001:db8::1]"}, "2001:db8::1"},
		"a proxy that writes no address":   {1, []string{"unknown"}, "192.0.2.9"},
		"a proxy that forgets to write it": {1, nil, "192.0.2.9"},
	} {
		t.Run(name, func(t *testing.T) {
			g := &Gateway{cfg: Config{TrustedProxies: c.trusted}}
			r := httptest.NewRequest(http.MethodGet, Path, nil)
			r.RemoteAddr, r.Header["X-Forwarded-For"] = "192.0.2.9:1234", c.forwarded
			require.Equal(t, c.want, g.remote(r))
		})
	}
}

func TestOperatorsAreToldOfAProxyThatIsNotKnown(t *testing.T) {
	var log bytes.Buffer
	g := &Gateway{log: slog.New(slog.NewTextHandler(&log, nil)), suspected: rate.NewLimiter(rate.Every(time.Minute), 1)}
	plain := httptest.NewRequest(http.MethodGet, Path, nil)
	g.suspectProxy(plain)
	require.Empty(t, log.String())
	forwarded := httptest.NewRequest(http.MethodGet, Path, nil)
	forwarded.Header.Set("X-Forwarded-For", "198.51.100.1")
	for range 3 {
		g.suspectProxy(forwarded)
	}
	require.Equal(t, 1, strings.Count(log.String(), "--gateway.trusted-proxies"), "once a minute is enough")
}
