package standalone

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/auth"
)

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
