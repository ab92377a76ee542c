package httpserver_test

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/runnelhq/runnel/pkg/httpserver"
	"github.com/runnelhq/runnel/pkg/listen"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	// short is the time limit of a server whose clients stop; others have patience, which is what a loaded machine may need.
	short    = 200 * time.Millisecond
	patience = 30 * time.Second
)

// serve runs a server with a time limit, and returns its address.
func serve(t *testing.T, limit time.Duration, answer func(*http.Request) time.Duration) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hello")) })
	mux.HandleFunc("POST /echo", func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, "half a body", http.StatusBadRequest)
			return
		}
		_, _ = w.Write(data)
	})
	mux.HandleFunc("GET /endless", func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("GET /known", func(w http.ResponseWriter, r *http.Request) {
		if !listen.Authenticated(r.Context()) {
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	listener, err := listen.Open(listen.Config{
		Name: "test", Address: "127.0.0.1:0", MaxSockets: 10, Timeout: time.Hour, Registerer: prometheus.NewRegistry(),
	})
	require.NoError(t, err)
	server := httpserver.New(mux, httpserver.Config{
		Log: slog.New(slog.DiscardHandler), RequestTimeout: limit, IdleTimeout: limit, AnswerTimeout: answer,
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return listener.Addr().String()
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	return conn
}

// A client that begins to send and then stops is disconnected at every stage.
func TestAClientThatStopsIsCutOff(t *testing.T) {
	t.Parallel()
	address := serve(t, short, nil)
	for name, sent := range map[string]string{
		"nothing":                    "",
		"half a request line":        "GET /",
		"half a header":              "GET / HTTP/1.1\r\nHost: x\r\nA: ",
		"an answer, and no more":     "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"a body that is read":        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345",
		"a chunked body":             "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
		"a body that nobody wants":   "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n12345",
		"a body for another method":  "PUT /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
		"a body for an unknown page": "POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n",
		"a body with a GET":          "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n",
		"a body that is expected":    "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := dial(t, address)
			_, err := conn.Write([]byte(sent))
			require.NoError(t, err)
			_, err = io.Copy(io.Discard, conn)
			require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "the server does not close the socket")
		})
	}
}

// If a client does not read an answer, the server gives the answer up.
func TestAnAnswerThatIsNotReadIsGivenUp(t *testing.T) {
	given := make(chan error)
	address := serve(t, short, nil)
	conn := dial(t, address)
	_, err := conn.Write([]byte("GET /endless HTTP/1.1\r\nHost: x\r\n\r\n"))
	require.NoError(t, err)
	go func() {
		for { // loop until the server has closed the socket, because writing makes no room for the answer
			if _, err := conn.Write([]byte("\r\n")); err != nil {
				given <- err
				return
			}
		}
	}()
	require.NotErrorIs(t, <-given, os.ErrDeadlineExceeded, "the server does not close the socket")
}

// A request whose body was read leaves its connection open. If the body was not read, the server closes the connection
// after the answer.
func TestOnlyABodyThatIsNotReadEndsTheConnection(t *testing.T) {
	address := serve(t, patience, func(*http.Request) time.Duration { return time.Minute })
	for request, closes := range map[string]bool{
		"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello":                            false,
		"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n": false,
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n":                                                           false,
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello":                                true,
		"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello":                                 true,
	} {
		conn := dial(t, address)
		_, err := conn.Write([]byte(request))
		require.NoError(t, err)
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, response.Body)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Equal(t, closes, response.Close, request)
	}
}

func TestHandlersCanReportAnAuthenticatedClient(t *testing.T) {
	address := serve(t, patience, nil)
	conn := dial(t, address)
	_, err := conn.Write([]byte("GET /known HTTP/1.1\r\nHost: x\r\n\r\n"))
	require.NoError(t, err)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusOK, response.StatusCode)
}
