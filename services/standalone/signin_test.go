package standalone

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/ids"
)

var testSecret = []byte(strings.Repeat("s", 32))

func TestTheDevelopmentSignInAsksForTheCode(t *testing.T) {
	open := newSignIn(testSecret)
	require.GreaterOrEqual(t, len(open.code), 26, "128 bits")
	require.NotEqual(t, open.code, newSignIn(testSecret).code, "each start has its own")
	right := fmt.Sprintf(`{"user":"ann","code":%q}`, open.code)
	for name, c := range map[string]struct {
		signIn             *signIn
		remote, host, body string
		header             map[string]string
		status             int
	}{
		"from this machine":        {open, "127.0.0.1:5", "127.0.0.1:8080", right, map[string]string{"Origin": "http://127.0.0.1:8080", "Sec-Fetch-Site": "same-origin"}, 200},
		"by name":                  {open, "[::1]:5", "localhost:8080", right, nil, 200},
		"without a port":           {open, "[::1]:5", "[::1]", right, nil, 200},
		"without the code":         {open, "127.0.0.1:5", "127.0.0.1:8080", `{"user":"ann"}`, nil, 401},
		"with an empty code":       {open, "127.0.0.1:5", "127.0.0.1:8080", `{"user":"ann","code":""}`, nil, 401},
		"with another code":        {open, "127.0.0.1:5", "127.0.0.1:8080", `{"user":"ann","code":"` + newSignIn(testSecret).code + `"}`, nil, 401},
		"with a part of the code":  {open, "127.0.0.1:5", "127.0.0.1:8080", fmt.Sprintf(`{"user":"ann","code":%q}`, open.code[:25]), nil, 401},
		"from elsewhere":           {open, "10.0.0.9:5", "127.0.0.1:8080", right, nil, 403},
		"by another name":          {open, "127.0.0.1:5", "chat.example.com", right, nil, 403},
		"by a rebound name":        {open, "127.0.0.1:5", "127.0.0.1.evil.example.com:8080", right, nil, 403},
		"from another site's page": {open, "127.0.0.1:5", "127.0.0.1:8080", right, map[string]string{"Origin": "http://evil.example.com"}, 403},
		"from another port's page": {open, "127.0.0.1:5", "127.0.0.1:8080", right, map[string]string{"Origin": "http://127.0.0.1:9999"}, 403},
		"from a sandboxed page":    {open, "127.0.0.1:5", "127.0.0.1:8080", right, map[string]string{"Origin": "null"}, 403},
		"across sites":             {open, "127.0.0.1:5", "127.0.0.1:8080", right, map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		"across ports":             {open, "127.0.0.1:5", "127.0.0.1:8080", right, map[string]string{"Sec-Fetch-Site": "same-site"}, 403},
		"a bad user":               {open, "127.0.0.1:5", "127.0.0.1:8080", fmt.Sprintf(`{"user":"a\u202eb","code":%q}`, open.code), nil, 400},
		"not JSON":                 {open, "127.0.0.1:5", "127.0.0.1:8080", `ann`, nil, 400},
		"too much":                 {open, "127.0.0.1:5", "127.0.0.1:8080", `{"user":"` + strings.Repeat("a", 2000) + `"}`, nil, 400},
		"with real authentication": {nil, "127.0.0.1:5", "127.0.0.1:8080", right, nil, 403},
	} {
		t.Run(name, func(t *testing.T) {
			handler, err := pages(c.signIn)
			require.NoError(t, err)
			request := httptest.NewRequest(http.MethodPost, "/dev/token", strings.NewReader(c.body))
			request.RemoteAddr, request.Host = c.remote, c.host
			for name, value := range c.header {
				request.Header.Set(name, value)
			}
			recorder := httptest.NewRecorder()
			handler.ServeHTTP(recorder, request)
			require.Equal(t, c.status, recorder.Code, recorder.Body.String())
			require.NotContains(t, recorder.Body.String(), open.code)
			if c.status == http.StatusOK {
				requireToken(t, recorder.Body, "ann")
			}
		})
	}
}

func requireToken(t *testing.T, body io.Reader, user string) {
	t.Helper()
	var answer struct {
		Token string `json:"token"`
	}
	require.NoError(t, json.NewDecoder(body).Decode(&answer))
	verifier, err := auth.New(auth.Config{HMACSecret: string(testSecret)}, auth.Options{})
	require.NoError(t, err)
	defer verifier.Close()
	claims, err := verifier.Verify(t.Context(), answer.Token)
	require.NoError(t, err)
	require.Equal(t, ids.User(user), claims.User)
}

// TestNothingThatAProxyAddsIsAccepted: every header that tells of a proxy refuses, even with the right code.
func TestNothingThatAProxyAddsIsAccepted(t *testing.T) {
	s := newSignIn(testSecret)
	for _, name := range []string{
		"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Server", "X-Forwarded", "Via", "X-Real-IP",
		"X-Client-IP", "True-Client-IP", "CF-Connecting-IP", "CF-Ray", "Fastly-Client-IP", "X-Envoy-External-Address", "CDN-Loop",
	} {
		request := httptest.NewRequest(http.MethodPost, "/dev/token", strings.NewReader(fmt.Sprintf(`{"user":"ann","code":%q}`, s.code)))
		request.RemoteAddr, request.Host = "127.0.0.1:5", "127.0.0.1:8080"
		request.Header.Set(name, "127.0.0.1")
		recorder := httptest.NewRecorder()
		s.ServeHTTP(recorder, request)
		require.Equal(t, http.StatusForbidden, recorder.Code, name)
	}
}

// TestAStrangerBehindAProxyOnThisMachineIsNobody: a stranger reaches the server through a proxy on its machine, so that the
// address and the Host are those of this machine. A proxy that names its client is refused; one that does not needs the code.
func TestAStrangerBehindAProxyOnThisMachineIsNobody(t *testing.T) {
	s := newSignIn(testSecret)
	server := httptest.NewServer(s)
	defer server.Close()
	target, err := url.Parse(server.URL)
	require.NoError(t, err)
	for name, c := range map[string]struct {
		rewrite func(*httputil.ProxyRequest)
		code    string
		status  int
	}{
		"that names its client":                             {func(p *httputil.ProxyRequest) { p.SetURL(target); p.SetXForwarded() }, s.code, http.StatusForbidden},
		"that hides it, as nginx does with proxy_pass only": {func(p *httputil.ProxyRequest) { p.SetURL(target) }, "", http.StatusUnauthorized},
		"that hides it, but whose client has the code":      {func(p *httputil.ProxyRequest) { p.SetURL(target) }, s.code, http.StatusOK},
	} {
		t.Run(name, func(t *testing.T) {
			proxy := httptest.NewServer(&httputil.ReverseProxy{Rewrite: c.rewrite})
			defer proxy.Close()
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, proxy.URL+"/dev/token",
				strings.NewReader(fmt.Sprintf(`{"user":"ann","code":%q}`, c.code)))
			require.NoError(t, err)
			response, err := http.DefaultClient.Do(request)
			require.NoError(t, err)
			defer response.Body.Close()
			require.Equal(t, c.status, response.StatusCode)
		})
	}
}

func TestWrongCodesAreLimited(t *testing.T) {
	s := newSignIn(testSecret)
	now := time.Now()
	s.now = func() time.Time { return now }
	for range maxWrongCodes {
		right, limited := s.check("wrong")
		require.False(t, right || limited)
		right, limited = s.check(s.code)
		require.True(t, right && !limited || s.wrong == maxWrongCodes, "those who know it are not slowed down by a few")
	}
	for _, code := range []string{"wrong", s.code} {
		right, limited := s.check(code)
		require.False(t, right, "no code is compared")
		require.True(t, limited)
	}
	now = now.Add(wrongCodesFor - time.Nanosecond)
	_, limited := s.check(s.code)
	require.True(t, limited)
	now = now.Add(time.Nanosecond)
	right, limited := s.check(s.code)
	require.True(t, right && !limited)
}
