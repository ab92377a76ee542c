package telemetry

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A token is replaced by replacing its file. A token that is too short changes nothing and is reported once.
func TestTheAdminTokenIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const first, second = "0123456789abcdef", "fedcba9876543210"
		path := filepath.Join(t.TempDir(), "token")
		write := func(token string) {
			require.NoError(t, os.WriteFile(path, []byte(token+"\n"), 0o600))
			time.Sleep(2 * time.Second)
		}
		write(first)
		var log strings.Builder
		g, err := newGuard(AdminConfig{TokenFile: path}, slog.New(slog.NewTextHandler(&log, nil)))
		require.NoError(t, err)
		lets := func(token string) bool {
			request := httptest.NewRequest(http.MethodGet, "/metrics", nil)
			request.SetBasicAuth("anybody", token)
			return g.lets(request)
		}
		require.True(t, lets(first))
		require.False(t, lets(second))
		write(second)
		require.True(t, lets(second))
		require.False(t, lets(first))
		for range 3 {
			write("short")
			require.True(t, lets(second))
			require.False(t, lets("short"))
		}
		require.Contains(t, log.String(), "cannot be used")
		require.NotContains(t, log.String(), second)

		_, err = newGuard(AdminConfig{TokenFile: path}, slog.New(slog.DiscardHandler))
		require.ErrorContains(t, err, "at least 16")
		_, err = newGuard(AdminConfig{TokenFile: path, Token: first}, slog.New(slog.DiscardHandler))
		require.ErrorContains(t, err, "both set")
	})
}
