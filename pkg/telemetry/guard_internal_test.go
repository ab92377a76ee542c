package telemetry

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A token is replaced by replacing its file. One that cannot be used leaves the token before it in force, and is logged.
func TestTheAdminTokenIsReadAgain(t *testing.T) {
	const first, second = "0123456789abcdef", "fedcba9876543210"
	path := filepath.Join(t.TempDir(), "token")
	write := func(token string) { require.NoError(t, os.WriteFile(path, []byte(token+"\n"), 0o600)) }
	write(first)
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		guard, err := newGuard(AdminConfig{TokenFile: path}, slog.New(slog.NewTextHandler(&log, nil)))
		require.NoError(t, err)
		lets := func(token string) bool {
			request := httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody)
			request.SetBasicAuth("anybody", token)
			return guard.lets(request)
		}
		require.True(t, lets(first))
		require.False(t, lets(second))
		write(second)
		time.Sleep(time.Second)
		require.True(t, lets(second))
		require.False(t, lets(first))
		write("short")
		time.Sleep(time.Second)
		require.True(t, lets(second))
		require.False(t, lets("short"))
		require.Contains(t, log.String(), "cannot be used")
	})

	_, err := newGuard(AdminConfig{TokenFile: path}, slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, "at least 16")
	_, err = newGuard(AdminConfig{TokenFile: path, Token: first}, slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, "both set")
}
