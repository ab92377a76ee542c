package launch_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/runnelhq/runnel/pkg/listen/reserve"
	"github.com/runnelhq/runnel/services/e2e/launch"
)

// The test program is also the program that tests start: it serves /readyz and /metrics until it is asked to end.
const playsServer = "LAUNCH_TEST_SERVER"

func TestMain(m *testing.M) {
	if address := os.Getenv(playsServer); address != "" {
		os.Exit(serve(address))
	}
	goleak.VerifyTestMain(m)
}

func serve(address string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	mux := http.NewServeMux()
	mux.HandleFunc("/readyz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/crash", func(http.ResponseWriter, *http.Request) { os.Exit(3) })
	mux.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "# HELP x something\nx 42\ny{label=\"z\"} 1\ngo_goroutines 1.2e+01\n")
	})
	listener, err := net.Listen("tcp", address)
	if err != nil {
		fmt.Println("cannot listen:", err)
		return 1
	}
	go http.Serve(listener, mux)
	<-ctx.Done()
	return 0
}

func command(t *testing.T, address string) launch.Command {
	t.Helper()
	path, err := os.Executable()
	require.NoError(t, err)
	return launch.Command{
		Name: "server", Path: path, Env: []string{playsServer + "=" + address},
		Log: filepath.Join(t.TempDir(), "server.log"), Ready: "http://" + address + "/readyz",
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	address, err := reserve.Address()
	require.NoError(t, err)
	return address
}

func get(t *testing.T, url string, timeout time.Duration) error {
	t.Helper()
	client := &http.Client{Timeout: timeout, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(url)
	if err == nil {
		require.NoError(t, response.Body.Close())
	}
	return err
}

func TestAProcessEndsAndComesBack(t *testing.T) {
	address := freeAddress(t)
	c := command(t, address)
	c.Crashed = func(name string, err error) { t.Errorf("%s did not crash: %v", name, err) }
	p, err := launch.Run(t.Context(), c)
	require.NoError(t, err)
	first := p.PID()
	usage, err := p.Usage()
	require.NoError(t, err)
	require.Positive(t, usage.RSS)

	p.Kill()
	require.Zero(t, p.PID())
	_, err = p.Usage()
	require.Error(t, err)
	require.Error(t, get(t, c.Ready, time.Second))
	require.NoError(t, p.Restart(t.Context()))
	require.NotEqual(t, first, p.PID())
	require.NoError(t, get(t, c.Ready, time.Minute))
	require.NoError(t, p.Stop())
	require.NoError(t, p.Stop(), "a second time changes nothing")
}

func TestAPausedProcessStandsStill(t *testing.T) {
	address := freeAddress(t)
	c := command(t, address)
	p, err := launch.Run(t.Context(), c)
	require.NoError(t, err)
	p.Pause()
	require.Error(t, get(t, c.Ready, 50*time.Millisecond))
	p.Resume()
	require.NoError(t, get(t, c.Ready, time.Minute))
	p.Pause()
	require.NoError(t, p.Stop(), "a paused process can be stopped")
}

func TestACrashIsToldAndAStopIsNot(t *testing.T) {
	address := freeAddress(t)
	c := command(t, address)
	crashes := make(chan error, 1)
	c.Crashed = func(_ string, err error) { crashes <- err }
	p, err := launch.Run(t.Context(), c)
	require.NoError(t, err)
	_ = get(t, "http://"+address+"/crash", time.Minute)
	require.ErrorContains(t, <-crashes, "exit status 3")
	require.NoError(t, p.Restart(t.Context()))
	require.NoError(t, p.Stop())
	require.Empty(t, crashes)
}

func TestAProcessThatCannotStartSaysWhy(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	c := command(t, taken.Addr().String())
	_, err = launch.Run(t.Context(), c)
	require.ErrorContains(t, err, "cannot listen")
}

func TestRestartGoesOnUntilItSucceeds(t *testing.T) {
	address := freeAddress(t)
	p, err := launch.Run(t.Context(), command(t, address))
	require.NoError(t, err)
	require.NoError(t, p.Stop())
	taken, err := net.Listen("tcp", address)
	require.NoError(t, err)
	refused := make(chan struct{})
	go func() {
		defer close(refused)
		conn, err := taken.Accept() // the harness asks whether it is ready: so it has been started
		if err == nil {
			conn.Close()
		}
		taken.Close()
	}()
	require.NoError(t, p.Restart(t.Context()))
	<-refused
	require.NoError(t, p.Stop())
}

func TestMetricsAreReadByName(t *testing.T) {
	p, err := launch.Run(t.Context(), command(t, freeAddress(t)))
	require.NoError(t, err)
	metrics, err := p.Metrics(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[string]float64{"x": 42, `y{label="z"}`: 1, "go_goroutines": 12}, metrics)
	require.NoError(t, p.Stop())
}
