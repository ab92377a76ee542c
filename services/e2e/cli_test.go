package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"

	"github.com/runnelhq/runnel/services/e2e/launch"
)

// terminal is a user who runs the program runnel.
type terminal struct {
	t       *testing.T
	program string
	address string
}

// run runs `runnel admin` and returns its output, its error output and its exit code.
func (m terminal) run(args ...string) (out, errs string, code int) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), patience)
	defer cancel()
	command := exec.CommandContext(ctx, m.program, append([]string{"admin", "--address", m.address, "--timeout", "15s"}, args...)...)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	var exit *exec.ExitError
	if err := command.Run(); err != nil && !errors.As(err, &exit) {
		require.NoError(m.t, err)
	}
	return stdout.String(), stderr.String(), command.ProcessState.ExitCode()
}

// ask runs a command and decodes its JSON.
func (m terminal) ask(into proto.Message, args ...string) {
	m.t.Helper()
	out, errs, code := m.run(append(args, "--json")...)
	require.Zero(m.t, code, errs)
	require.True(m.t, json.Valid([]byte(out)))
	require.NoError(m.t, protojson.Unmarshal([]byte(out), into))
}

func listensOn(t *testing.T, p *launch.Process) string {
	t.Helper()
	for _, arg := range p.Args {
		if address, found := strings.CutPrefix(arg, "--rpc.listen="); found {
			return address
		}
	}
	require.FailNow(t, "a process has no gRPC address", p.Args)
	return ""
}

// TestTheCommandLineSeesAndSteersSeveralProcesses runs commands against one worker of an installation with two gateways and
// two workers, each a separate process.
func TestTheCommandLineSeesAndSteersSeveralProcesses(t *testing.T) {
	programs := binaries(t, launch.Gateway, launch.Delivery, launch.History, launch.NATSServer, launch.Standalone)
	starting, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	suite, err := launch.Start(starting, launch.Options{Dir: t.TempDir(), Binaries: programs})
	require.NoError(t, err)
	t.Cleanup(suite.Kill)
	m := terminal{t, programs[launch.Standalone], listensOn(t, suite.Deliveries[0])}

	// Both workers own partitions before anything is moved.
	var list *adminv1.ListPartitionsResponse
	require.Eventually(t, func() bool {
		list = &adminv1.ListPartitionsResponse{}
		m.ask(list, "partitions", "list")
		owned := map[string]int{}
		for _, partition := range list.GetPartitions() {
			if partition.GetState() == "running" {
				owned[partition.GetOwner()]++
			}
		}
		return len(list.GetWorkers()) == 2 && owned[list.GetWorkers()[0].GetWorker()] == 8 && owned[list.GetWorkers()[1].GetWorker()] == 8
	}, patience, 100*time.Millisecond, "%v", list)
	moved := list.GetPartitions()[0]
	to := list.GetWorkers()[0].GetWorker()
	if moved.GetOwner() == to {
		to = list.GetWorkers()[1].GetWorker()
	}
	out, errs, code := m.run("partitions", "move", strconv.Itoa(int(moved.GetPartition())), to)
	require.Zero(t, code, errs)
	require.Equal(t, "partition 0 is on "+to+"\n", out)
	m.ask(list, "partitions", "list")
	require.Equal(t, to, list.GetPartitions()[0].GetOwner())
	out, _, code = m.run("status")
	require.Zero(t, code)
	require.Equal(t, 2, strings.Count(out, " serving "), out)

	// A gateway that hangs is named, and the data of the other one is returned all the same.
	suite.Gateways[1].Pause()
	out, errs, code = m.run("connections", "list")
	require.Equal(t, 3, code, errs)
	require.Equal(t, "no connections\n", out)
	require.Contains(t, errs, "the answer is incomplete: no answer from gateway gw-")
	suite.Gateways[1].Resume()

	// An unknown id always has the same answer and exit code.
	_, errs, code = m.run("conversations", "show", "g00000000000000000000000000")
	require.Equal(t, 1, code)
	require.Contains(t, errs, "no such conversation")
	_, _, code = m.run("dead-letters", "drop", "x")
	require.Equal(t, 2, code, "without --yes")
	history := terminal{t, m.program, listensOn(t, suite.Histories[0])}
	_, errs, code = history.run("status")
	require.Equal(t, 1, code)
	require.Contains(t, errs, "Is it a delivery worker")
	require.NoError(t, suite.Stop())
	_, errs, code = m.run("status")
	require.Equal(t, 1, code)
	require.Contains(t, errs, "no server answers at "+m.address)
}
