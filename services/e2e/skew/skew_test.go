package skew_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	deliveryv1 "github.com/runnelhq/runnel/proto/runnel/delivery/v1"

	"github.com/runnelhq/runnel/services/e2e/launch"
	"github.com/runnelhq/runnel/services/e2e/skew"
)

// patience bounds each wait; nothing here takes nearly as long.
const patience = 60 * time.Second

const (
	hinted = `{"message":{"text":"with a field of the next version","hint":"loud"}}`
	plain  = `{"message":{"text":"as ever"}}`
	note   = `{"note":{"text":"of the next version"}}`
)

// speaker is a running skewclient.
type speaker struct {
	t     *testing.T
	name  string
	stdin io.WriteCloser

	mu      sync.Mutex
	changed chan struct{} // closed and made anew with each line
	results []skew.Line
	events  map[uint64]skew.Line
	broken  string
}

func speak(t *testing.T, suite *launch.Suite, program, name, conversation string, args ...string) *speaker {
	t.Helper()
	token, err := suite.Token(name)
	require.NoError(t, err)
	s := &speaker{t: t, name: name, changed: make(chan struct{}), events: map[uint64]skew.Line{}}
	command := exec.Command(program, append([]string{"-url", suite.URLs[0], "-conversation", conversation, "-device", name}, args...)...)
	command.Env = append(os.Environ(), "SKEW_TOKEN="+token)
	command.Stderr = t.Output()
	s.stdin, err = command.StdinPipe()
	require.NoError(t, err)
	stdout, err := command.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, command.Start())
	read := make(chan struct{})
	go func() {
		defer close(read)
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			var line skew.Line
			if json.Unmarshal(lines.Bytes(), &line) == nil {
				s.take(line)
			}
		}
	}()
	t.Cleanup(func() {
		_ = s.stdin.Close()
		timer := time.AfterFunc(patience, func() { _ = command.Process.Kill() })
		<-read
		_ = command.Wait()
		timer.Stop()
	})
	return s
}

func (s *speaker) take(line skew.Line) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case line.Broken != "":
		s.broken = line.Broken
	case line.Seq != 0:
		s.events[line.Seq] = line
	default:
		s.results = append(s.results, line)
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

// wait waits until a condition holds.
func (s *speaker) wait(what string, so func() bool) {
	s.t.Helper()
	deadline := time.After(patience)
	for {
		s.mu.Lock()
		done, broken, changed := so(), s.broken, s.changed
		s.mu.Unlock()
		require.Empty(s.t, broken, "%s finds the log broken", s.name)
		if done {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			s.t.Fatalf("%s waited in vain: %s", s.name, what)
		}
	}
}

// send sends a body and returns its outcome.
func (s *speaker) send(body string) skew.Line {
	s.t.Helper()
	s.mu.Lock()
	before := len(s.results)
	s.mu.Unlock()
	_, err := io.WriteString(s.stdin, body+"\n")
	require.NoError(s.t, err)
	var line skew.Line
	s.wait("for the outcome of "+body, func() bool {
		if len(s.results) == before {
			return false
		}
		line = s.results[before]
		return true
	})
	return line
}

// has waits for an event, and checks that its content verified.
func (s *speaker) has(seq uint64, known bool) {
	s.t.Helper()
	s.wait(fmt.Sprintf("for seq %d", seq), func() bool { _, has := s.events[seq]; return has })
	s.mu.Lock()
	defer s.mu.Unlock()
	require.Equal(s.t, "content verified", s.events[seq].Content, "%s, seq %d", s.name, seq)
	require.Equal(s.t, known, s.events[seq].Known, "%s, seq %d", s.name, seq)
}

// TestMixedVersions is promise 8: parts of different versions never hurt each other.
func TestMixedVersions(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	source := filepath.Join(dir, "next")
	require.NoError(t, skew.Next(ctx, source))
	programs := []string{launch.Gateway, launch.Delivery, launch.History, launch.Standalone, launch.SkewClient}
	versions := map[string]launch.Binaries{}
	var err error
	versions["next"], err = skew.Build(ctx, source, filepath.Join(dir, "bin-next"), "", programs...)
	require.NoError(t, err)
	versions["old"], err = launch.Build(ctx, filepath.Join(dir, "bin-old"), "", append(programs, launch.NATSServer)...)
	require.NoError(t, err)

	suite, err := launch.Start(ctx, launch.Options{Dir: filepath.Join(dir, "run"), Binaries: versions["old"], Gateways: 1, Deliveries: 1})
	require.NoError(t, err)
	t.Cleanup(suite.Kill)
	parts := map[string]*launch.Process{launch.History: suite.Histories[0], launch.Delivery: suite.Deliveries[0], launch.Gateway: suite.Gateways[0]}
	is := map[string]string{launch.History: "old", launch.Delivery: "old", launch.Gateway: "old"}
	become := func(program, version string) {
		t.Helper()
		require.NoError(t, parts[program].Stop())
		parts[program].Path, is[program] = versions[version][program], version
		restarting, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		require.NoError(t, parts[program].Restart(restarting))
	}
	worker, err := grpc.NewClient("passthrough:///"+parts[launch.Delivery].Flag("rpc.listen"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer worker.Close()
	admin := adminv1.NewAdminServiceClient(worker)

	conversationID := createGroup(t, deliveryv1.NewDeliveryServiceClient(worker))
	old := speak(t, suite, versions["old"][launch.SkewClient], "ann", conversationID)
	oldJSON := speak(t, suite, versions["old"][launch.SkewClient], "bob", conversationID, "-json")
	next := speak(t, suite, versions["next"][launch.SkewClient], "cem", conversationID)
	everybody := []*speaker{old, oldJSON, next}

	// A rolling upgrade and a rollback: one part changes at a time, through every mix. At level 1 a field that does not
	// affect decisions is admitted by parts that know it, and kept by all parts.
	for _, step := range []struct{ program, version string }{
		{"", ""},
		{launch.History, "next"},
		{launch.Delivery, "next"},
		{launch.History, "old"},
		{launch.Gateway, "next"},
		{launch.History, "next"},
		{launch.Delivery, "old"},
		{launch.History, "old"},
		{launch.Gateway, "old"},
	} {
		if step.program != "" {
			become(step.program, step.version)
		}
		t.Logf("history %s, worker %s, gateway %s", is[launch.History], is[launch.Delivery], is[launch.Gateway])
		body := plain
		if is[launch.Gateway] == "next" {
			body = hinted
			refused := next.send(note)
			require.Contains(t, refused.Refused, "level", "the kind waits for the level")
		}
		for _, sent := range []skew.Line{old.send(plain), next.send(body), oldJSON.send(plain)} {
			require.Empty(t, sent.Refused)
			for _, reader := range everybody {
				reader.has(sent.Committed, true)
			}
		}
	}

	// The level is not raised while a part is live that does not know it.
	for _, program := range []string{launch.History, launch.Delivery} {
		become(program, "next")
	}
	// A worker that was just replaced counts as live until its lease has expired; then only the gateway is left to be
	// named.
	require.Eventually(t, func() bool {
		_, err := raise(ctx, admin)
		return status.Code(err) == codes.FailedPrecondition && strings.Contains(err.Error(), "gateway")
	}, patience, 200*time.Millisecond)
	become(launch.Gateway, "next")
	require.Eventually(t, func() bool {
		level, err := raise(ctx, admin)
		return err == nil && level.GetLevel() == uint32(skew.NextLevel())
	}, patience, 200*time.Millisecond)

	// The new kind reaches all clients; those that do not know it keep it and can verify it.
	var sent skew.Line
	require.Eventually(t, func() bool { sent = next.send(note); return sent.Refused == "" }, patience, 200*time.Millisecond, "the gateway learns of the level")
	next.has(sent.Committed, true)
	old.has(sent.Committed, false)
	oldJSON.has(sent.Committed, false)
	after := old.send(plain)
	require.Empty(t, after.Refused)
	next.has(after.Committed, true)

	// After that there is no rollback.
	for program, p := range parts {
		require.NoError(t, p.Stop())
		p.Path = versions["old"][program]
		starting, cancel := context.WithTimeout(ctx, patience)
		_, err := launch.Run(starting, launch.Command{
			Name: "old " + program, Path: versions["old"][program], Args: p.Args, Env: p.Env, Log: filepath.Join(dir, "refused-"+program), Ready: p.Ready,
		})
		cancel()
		require.ErrorContains(t, err, "level", "%s of the old version must not start", program)
		p.Path = versions["next"][program]
		restarting, cancel := context.WithTimeout(ctx, patience)
		require.NoError(t, p.Restart(restarting))
		cancel()
	}
	letters, err := admin.ListDeadLetters(ctx, &adminv1.ListDeadLettersRequest{}, grpc.WaitForReady(true))
	require.NoError(t, err)
	require.Empty(t, letters.GetDeadLetters())

	// Both versions find the whole log verified.
	for name, binaries := range versions {
		output, err := exec.CommandContext(ctx, binaries[launch.Standalone], "verify", conversationID, "--history-address="+parts[launch.History].Flag("rpc.listen")).CombinedOutput()
		require.NoError(t, err, "%s: %s", name, output)
	}
}

func createGroup(t *testing.T, delivery deliveryv1.DeliveryServiceClient) string {
	t.Helper()
	answer, err := delivery.Submit(t.Context(), &deliveryv1.SubmitRequest{
		Sender: "ann", CommandId: uuid.Must(uuid.NewV7()).String(),
		Body: &conversationv1.Body{Action: &conversationv1.Body_Create{Create: &conversationv1.Create{
			Kind: conversationv1.Kind_KIND_GROUP, Name: "mixed", Members: []string{"bob", "cem"},
		}}},
	}, grpc.WaitForReady(true))
	require.NoError(t, err)
	require.Nil(t, answer.GetOutcome().GetError())
	return answer.GetOutcome().GetConversationId()
}

func raise(ctx context.Context, admin adminv1.AdminServiceClient) (*adminv1.RaiseLevelResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return admin.RaiseLevel(ctx, &adminv1.RaiseLevelRequest{Level: uint32(skew.NextLevel())}, grpc.WaitForReady(true))
}
