package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAsk(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RequestURI() != "/readyz?full=1" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	require.NoError(t, ask(server.URL+"/readyz?full=1", "", time.Minute))
	require.ErrorContains(t, ask(server.URL+"/", "", time.Minute), "503")
	require.NoError(t, ask("tcp://"+server.Listener.Addr().String(), "", time.Minute))
	for _, wrong := range []string{"", "tcp://127.0.0.1", "/readyz", "https://127.0.0.1:1/", "http://127.0.0.1/", "http://127.0.0.1:1:2/"} {
		require.ErrorContains(t, ask(wrong, "", time.Minute), "not of the form", wrong)
	}
}

// The token goes to every address, and each address that does not answer is reported.
func TestRunAsksAllWithTheToken(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret" || r.URL.Path == "/broken" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer server.Close()
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(file, []byte("secret\n"), 0o600))
	require.NoError(t, run(file, []string{server.URL + "/metrics", server.URL + "/"}))
	err := run(file, []string{server.URL + "/broken", server.URL + "/metrics", "nonsense"})
	require.ErrorContains(t, err, "401")
	require.ErrorContains(t, err, "nonsense")
	require.ErrorContains(t, run("", []string{server.URL + "/metrics"}), "401")
	require.ErrorIs(t, run(file+"s", nil), os.ErrNotExist)
}

// TestAskGivesUp: neither nobody, nor somebody who does not speak, nor somebody who speaks otherwise is healthy.
func TestAskGivesUp(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := "http://" + listener.Addr().String() + "/"
	require.ErrorContains(t, ask(address, "", time.Millisecond), "no answer")
	answered := make(chan error, 1)
	go func() {
		_, _ = listener.Accept() // the first one, which gave up
		connection, err := listener.Accept()
		if err == nil {
			_, err = connection.Write([]byte(strings.Repeat("x", 200) + "\n"))
			_ = connection.Close()
		}
		answered <- err
	}()
	require.Error(t, ask(address, "", time.Minute))
	require.NoError(t, <-answered)
	require.NoError(t, listener.Close())
	require.ErrorContains(t, ask(address, "", time.Minute), "refused")
}
