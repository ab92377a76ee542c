package attack_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/services/gateway"
	"github.com/runnelhq/runnel/services/standalone"
)

const evil = "https://evil.example.com"

var crossSite = []attack{
	{
		name: "a page of another site, at the gateway", tries: "a WebSocket with the Origin of another site, of another port, and null", seen: "403",
		bound: bound{megabytes: 64}, run: func(s *target) {
			for _, origin := range []string{evil, "http://127.0.0.1:1", "null"} {
				dialer := s.dialer()
				_, response, err := dialer.DialContext(s.Context(), "ws://"+s.address("gateway")+gateway.Path, http.Header{"Origin": {origin}})
				require.ErrorIs(s, err, websocket.ErrBadHandshake)
				_ = response.Body.Close()
				require.Equal(s, http.StatusForbidden, response.StatusCode, origin)
			}
			s.during()
		},
	},
	{
		name: "a page of another site, at the admin port", tries: "metrics, profiles and the status page with a foreign Origin, Sec-Fetch-Site or Host", seen: "403",
		bound: bound{megabytes: 64}, run: func(s *target) {
			for _, path := range []string{"/", "/metrics", "/debug/pprof/heap", "/debug/"} {
				for _, header := range []http.Header{{"Origin": {evil}}, {"Sec-Fetch-Site": {"cross-site"}}, {"Sec-Fetch-Site": {"same-site"}}, {"Host": {"evil.example.com"}}} {
					status, _ := s.request("admin", http.MethodGet, path, header, "")
					require.Equal(s, http.StatusForbidden, status, "%s %v", path, header)
				}
			}
			s.during()
		},
	},
	{
		name: "development sign-in from elsewhere", tries: "a token through a proxy on the same machine, for a page of another site, and without the code that the server printed", seen: "401 or 403",
		bound: bound{megabytes: 64}, settings: func(_ *testing.T, cfg *standalone.Config) { cfg.Auth.HMACSecret = "" },
		run: func(s *target) {
			for _, header := range []http.Header{
				{}, {"X-Forwarded-For": {"203.0.113.7"}}, {"Forwarded": {"for=203.0.113.7"}}, {"Origin": {evil}}, {"Host": {"evil.example.com"}}, {"Sec-Fetch-Site": {"cross-site"}},
			} {
				status, answer := s.request("gateway", http.MethodPost, "/dev/token", header, `{"user":"ann"}`)
				require.Contains(s, []int{http.StatusUnauthorized, http.StatusForbidden}, status, "%v", header)
				require.NotContains(s, answer, "eyJ")
			}
			s.during()
		},
	},
	{
		name: "guessing the code of the development sign-in", tries: "500 wrong codes", seen: "401, then 429; the honest client stays connected",
		bound: bound{megabytes: 64, lines: 2}, settings: func(_ *testing.T, cfg *standalone.Config) { cfg.Auth.HMACSecret = "" },
		run: func(s *target) {
			for i := range 500 {
				status, answer := s.request("gateway", http.MethodPost, "/dev/token", http.Header{}, fmt.Sprintf(`{"user":"ann","code":"%d"}`, i))
				require.Contains(s, []int{http.StatusUnauthorized, http.StatusTooManyRequests}, status)
				require.NotContains(s, answer, "eyJ")
			}
			s.during()
		},
	},
}

// request sends one request, and returns its answer.
func (s *target) request(listener, method, path string, header http.Header, body string) (status int, answer string) {
	s.Helper()
	request, err := http.NewRequestWithContext(s.Context(), method, "http://"+s.address(listener)+path, strings.NewReader(body))
	require.NoError(s, err)
	request.Header, request.Host, request.Close = header.Clone(), header.Get("Host"), true
	response, err := http.DefaultClient.Do(request)
	require.NoError(s, err)
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(response.Body)
	require.NoError(s, err)
	return response.StatusCode, string(data)
}
