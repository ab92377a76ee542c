package standalone

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/auth"
)

func TestTheDevelopmentSignInServesThisMachineOnly(t *testing.T) {
	secret := []byte(strings.Repeat("s", 32))
	open, err := pages(secret)
	require.NoError(t, err)
	closed, err := pages(nil)
	require.NoError(t, err)
	for name, c := range map[string]struct {
		handler                    http.Handler
		remote, host, origin, body string
		status                     int
	}{
		"from this machine":        {open, "127.0.0.1:5", "127.0.0.1:8080", "http://127.0.0.1:8080", `{"user":"ann"}`, 200},
		"by name":                  {open, "[::1]:5", "localhost:8080", "", `{"user":"ann"}`, 200},
		"from elsewhere":           {open, "10.0.0.9:5", "127.0.0.1:8080", "", `{"user":"ann"}`, 403},
		"behind a proxy":           {open, "127.0.0.1:5", "chat.example.com", "", `{"user":"ann"}`, 403},
		"from another site's page": {open, "127.0.0.1:5", "127.0.0.1:8080", "http://evil.example.com", `{"user":"ann"}`, 403},
		"a bad user":               {open, "127.0.0.1:5", "127.0.0.1:8080", "", `{"user":"a.b"}`, 400},
		"not JSON":                 {open, "127.0.0.1:5", "127.0.0.1:8080", "", `ann`, 400},
		"too much":                 {open, "127.0.0.1:5", "127.0.0.1:8080", "", `{"user":"` + strings.Repeat("a", 2000) + `"}`, 400},
		"with real authentication": {closed, "127.0.0.1:5", "127.0.0.1:8080", "", `{"user":"ann"}`, 403},
	} {
		t.Run(name, func(t *testing.T) {
			request := httptest.NewRequest(http.MethodPost, "/dev/token", strings.NewReader(c.body))
			request.RemoteAddr, request.Host = c.remote, c.host
			if c.origin != "" {
				request.Header.Set("Origin", c.origin)
			}
			recorder := httptest.NewRecorder()
			c.handler.ServeHTTP(recorder, request)
			require.Equal(t, c.status, recorder.Code, recorder.Body.String())
			if c.status != http.StatusOK {
				return
			}
			var answer struct {
				Token string `json:"token"`
			}
			require.NoError(t, json.Unmarshal(recorder.Body.Bytes(), &answer))
			verifier, err := auth.New(auth.Config{HMACSecret: string(secret)}, auth.Options{})
			require.NoError(t, err)
			defer verifier.Close()
			claims, err := verifier.Verify(t.Context(), answer.Token)
			require.NoError(t, err)
			require.Equal(t, "ann", claims.User)
		})
	}
}

func TestThePageIsServedWithAPolicy(t *testing.T) {
	handler, err := pages(nil)
	require.NoError(t, err)
	for path, want := range map[string]string{"/": "<title>Runnel</title>", "/chat.js": "runnel.v1.json", "/chat.css": "body"} {
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, path, nil))
		require.Equal(t, http.StatusOK, recorder.Code)
		require.Contains(t, recorder.Body.String(), want)
		require.Contains(t, recorder.Header().Get("Content-Security-Policy"), "default-src 'self'")
	}
}

func TestTheDevelopmentSecretIsMadeOnceAndKeptPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	first, err := DevSecret(dir)
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(first), auth.MinSecretBytes)
	again, err := DevSecret(dir)
	require.NoError(t, err)
	require.Equal(t, first, again)
	info, err := os.Stat(filepath.Join(dir, "dev-secret"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}
