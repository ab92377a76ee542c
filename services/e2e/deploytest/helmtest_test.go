package deploytest

import (
	"context"
	"encoding/json"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/listen/reserve"
)

// testHelmTest runs what the pod of helm test runs, against the trial installation: it succeeds, and fails if the token is not
// the one of the services or a service does not answer.
func testHelmTest(t *testing.T, b bed) {
	t.Helper()
	text, err := render(t, trialValues...)
	require.NoError(t, err, text)
	objects := decode(t, text)
	require.Len(t, objects.Tests, 1)
	command := objects.Tests[0].Container().Command
	probe := filepath.Join(t.TempDir(), "probe")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", probe, "./probe")
	build.Dir, build.Env = deployDir+"/images", append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0")
	output, err := build.CombinedOutput()
	require.NoError(t, err, string(output))

	token := filepath.Join(t.TempDir(), "token")
	run := func(secret string, args ...string) (string, error) {
		require.NoError(t, os.WriteFile(token, []byte(secret), 0o600))
		output, err := exec.CommandContext(t.Context(), probe, append([]string{"-token-file", token}, args...)...).CombinedOutput()
		return string(output), err
	}
	var addresses []string
	for _, address := range command[3:] {
		target, err := url.Parse(address)
		require.NoError(t, err)
		w, port, err := objects.dial(target.Host)
		require.NoError(t, err)
		target.Host = b.running.Addresses[w.Component()][map[string]string{"admin": "admin.listen", "clients": "gateway.listen"}[portName(w, port)]]
		addresses = append(addresses, target.String())
	}
	message, err := run(b.token(t), addresses...)
	require.NoError(t, err, message)
	message, err = run("not the token", addresses...)
	require.Error(t, err)
	require.Contains(t, message, "401")
	nobody, err := reserve.Address()
	require.NoError(t, err)
	message, err = run(b.token(t), append(addresses, "tcp://"+nobody)...)
	require.Error(t, err)
	require.Contains(t, message, "refused")
}

// testOutage stops history, as an outage of the database would seem to a gateway. The gateway's readiness probe succeeds all the
// time, or the Service would have no endpoints left; its answer says what is wrong.
func testOutage(t *testing.T, b bed) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	path := b.trial.workload(gateway).Container().ReadinessProbe.HTTPGet.Path
	require.NoError(t, b.running.Processes[history].Stop())
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		status, body, err := b.running.Get(gateway, path, b.token(t))
		require.NoError(t, err)
		require.Equal(t, 200, status, "a gateway without history: %s", body)
		var answer struct {
			Ready    bool              `json:"ready"`
			Degraded bool              `json:"degraded"`
			Checks   map[string]string `json:"checks"`
		}
		require.NoError(t, json.Unmarshal([]byte(body), &answer))
		require.True(t, answer.Ready)
		if answer.Degraded {
			require.True(t, strings.HasPrefix(answer.Checks["history"], "degraded: "), body)
			break
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			require.Fail(t, "the outage is not reported", body)
		}
	}
	require.NoError(t, b.running.Processes[history].Restart(ctx))
	require.Eventually(t, func() bool {
		_, body, err := b.running.Get(gateway, path, "")
		return err == nil && !strings.Contains(body, "degraded")
	}, time.Minute, 20*time.Millisecond)
}
