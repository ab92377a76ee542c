package admincli_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"

	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/pkg/settings"
	"github.com/runnelhq/runnel/pkg/telemetry"
	"github.com/runnelhq/runnel/services/standalone/admincli"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// now is the time at which the commands run; the answers contain times near it.
var now = time.Date(2026, 11, 22, 3, 4, 5, 0, time.UTC)

func ms(before time.Duration) int64 { return now.Add(-before).UnixMilli() }

// worker is a fake delivery worker: it returns the answer that the test set for a type of request, whatever the request
// contains.
type worker struct {
	adminv1.UnimplementedAdminServiceServer

	answer func(request proto.Message) (proto.Message, error)
	asked  []proto.Message
}

func ask[Response proto.Message](w *worker, request proto.Message) (none Response, _ error) {
	w.asked = append(w.asked, request)
	answer, err := w.answer(request)
	if err != nil {
		return none, err
	}
	return answer.(Response), nil
}

func (w *worker) GetStatus(_ context.Context, r *adminv1.GetStatusRequest) (*adminv1.GetStatusResponse, error) {
	return ask[*adminv1.GetStatusResponse](w, r)
}

func (w *worker) ListConnections(_ context.Context, r *adminv1.ListConnectionsRequest) (*adminv1.ListConnectionsResponse, error) {
	return ask[*adminv1.ListConnectionsResponse](w, r)
}

func (w *worker) GetConnection(_ context.Context, r *adminv1.GetConnectionRequest) (*adminv1.GetConnectionResponse, error) {
	return ask[*adminv1.GetConnectionResponse](w, r)
}

func (w *worker) Disconnect(_ context.Context, r *adminv1.DisconnectRequest) (*adminv1.DisconnectResponse, error) {
	return ask[*adminv1.DisconnectResponse](w, r)
}

func (w *worker) GetUser(_ context.Context, r *adminv1.GetUserRequest) (*adminv1.GetUserResponse, error) {
	return ask[*adminv1.GetUserResponse](w, r)
}

func (w *worker) RevokeUser(_ context.Context, r *adminv1.RevokeUserRequest) (*adminv1.RevokeUserResponse, error) {
	return ask[*adminv1.RevokeUserResponse](w, r)
}

func (w *worker) ListConversations(_ context.Context, r *adminv1.ListConversationsRequest) (*adminv1.ListConversationsResponse, error) {
	return ask[*adminv1.ListConversationsResponse](w, r)
}

func (w *worker) GetConversation(_ context.Context, r *adminv1.GetConversationRequest) (*adminv1.GetConversationResponse, error) {
	return ask[*adminv1.GetConversationResponse](w, r)
}

func (w *worker) ListMembers(_ context.Context, r *adminv1.ListMembersRequest) (*adminv1.ListMembersResponse, error) {
	return ask[*adminv1.ListMembersResponse](w, r)
}

func (w *worker) VerifyConversation(_ context.Context, r *adminv1.VerifyConversationRequest) (*adminv1.VerifyConversationResponse, error) {
	return ask[*adminv1.VerifyConversationResponse](w, r)
}

func (w *worker) ListPartitions(_ context.Context, r *adminv1.ListPartitionsRequest) (*adminv1.ListPartitionsResponse, error) {
	return ask[*adminv1.ListPartitionsResponse](w, r)
}

func (w *worker) MovePartition(_ context.Context, r *adminv1.MovePartitionRequest) (*adminv1.MovePartitionResponse, error) {
	return ask[*adminv1.MovePartitionResponse](w, r)
}

func (w *worker) ListDeadLetters(_ context.Context, r *adminv1.ListDeadLettersRequest) (*adminv1.ListDeadLettersResponse, error) {
	return ask[*adminv1.ListDeadLettersResponse](w, r)
}

func (w *worker) GetDeadLetter(_ context.Context, r *adminv1.GetDeadLetterRequest) (*adminv1.GetDeadLetterResponse, error) {
	return ask[*adminv1.GetDeadLetterResponse](w, r)
}

func (w *worker) RetryDeadLetter(_ context.Context, r *adminv1.RetryDeadLetterRequest) (*adminv1.RetryDeadLetterResponse, error) {
	return ask[*adminv1.RetryDeadLetterResponse](w, r)
}

func (w *worker) DropDeadLetter(_ context.Context, r *adminv1.DropDeadLetterRequest) (*adminv1.DropDeadLetterResponse, error) {
	return ask[*adminv1.DropDeadLetterResponse](w, r)
}

func (w *worker) Explain(_ context.Context, r *adminv1.ExplainRequest) (*adminv1.ExplainResponse, error) {
	return ask[*adminv1.ExplainResponse](w, r)
}

func (w *worker) GetLevel(_ context.Context, r *adminv1.GetLevelRequest) (*adminv1.GetLevelResponse, error) {
	return ask[*adminv1.GetLevelResponse](w, r)
}

func (w *worker) RaiseLevel(_ context.Context, r *adminv1.RaiseLevelRequest) (*adminv1.RaiseLevelResponse, error) {
	return ask[*adminv1.RaiseLevelResponse](w, r)
}

func (w *worker) Erase(_ context.Context, r *adminv1.EraseRequest) (*adminv1.EraseResponse, error) {
	return ask[*adminv1.EraseResponse](w, r)
}

func (w *worker) MarkBackup(_ context.Context, r *adminv1.MarkBackupRequest) (*adminv1.MarkBackupResponse, error) {
	return ask[*adminv1.MarkBackupResponse](w, r)
}

// answering makes a worker that returns the same answer to every request.
func answering(answer proto.Message) *worker {
	return &worker{answer: func(proto.Message) (proto.Message, error) { return answer, nil }}
}

func refusing(code codes.Code, message string) *worker {
	return &worker{answer: func(proto.Message) (proto.Message, error) { return nil, grpcstatus.Error(code, message) }}
}

// serve runs a worker on a real gRPC server.
func serve(t *testing.T, w *worker, change ...func(*rpc.ServerConfig)) (address string) {
	t.Helper()
	cfg := rpc.ServerConfig{Listen: "127.0.0.1:0"}
	for _, change := range change {
		change(&cfg)
	}
	server, err := rpc.NewServer(cfg, telemetry.Discard())
	require.NoError(t, err)
	if w != nil {
		methods := map[string][]rpc.Role{}
		for _, method := range adminv1.AdminService_ServiceDesc.Methods {
			methods[method.MethodName] = []rpc.Role{rpc.RoleAdmin}
		}
		server.Allow(rpc.For(&adminv1.AdminService_ServiceDesc, methods))
		adminv1.RegisterAdminServiceServer(server, w)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-served)
	})
	return server.Addr()
}

// result is what a command printed, and its exit code.
type result struct {
	out, err string
	code     int
}

// run runs a command line as the program does. The clock advances by step each time it is read.
func run(t *testing.T, step time.Duration, args ...string) result {
	t.Helper()
	var cli struct {
		Admin admincli.Command `cmd:""`
	}
	var out, errs bytes.Buffer
	at := now.In(time.FixedZone("here", 3600))
	console := &admincli.Console{Out: &out, Err: &errs, Now: func() time.Time {
		defer func() { at = at.Add(step) }()
		return at
	}}
	parser, err := settings.New("runnel", "", &cli, kong.Writers(&out, &errs), kong.Exit(func(int) {}))
	require.NoError(t, err)
	command, err := parser.Parse(append([]string{"admin"}, args...))
	if err != nil {
		return result{out.String(), err.Error(), admincli.ExitUsage}
	}
	command.BindTo(t.Context(), (*context.Context)(nil))
	command.Bind(console)
	if err = command.Run(); err == nil {
		return result{out.String(), errs.String(), 0}
	}
	code := 1
	var coder kong.ExitCoder
	if errors.As(err, &coder) {
		code = coder.ExitCode()
	}
	return result{out.String(), errs.String() + "runnel: " + err.Error() + "\n", code}
}

// golden compares the output of a run with a golden file that was reviewed.
func golden(t *testing.T, name string, got result) {
	t.Helper()
	text := got.out
	if got.err != "" {
		text += "--- standard error\n" + got.err
	}
	if got.code != 0 {
		text += "--- exit code " + strconv.Itoa(got.code) + "\n"
	}
	for line := range strings.Lines(text) {
		require.Equal(t, strings.TrimRight(line, " \n")+"\n", line, "no trailing white space")
	}
	path := filepath.Join("testdata", name+".txt")
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err, "write it with -update, and review it")
	require.Equal(t, string(want), text)
}

// both runs a command as a table, which is compared with a golden file, and as JSON, which must contain the whole answer.
func both(t *testing.T, name string, answer proto.Message, args ...string) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		args := append([]string{"--address", serve(t, answering(answer))}, args...)
		table := run(t, 0, args...)
		golden(t, name, table)
		first, second := run(t, 0, append(args, "--json")...), run(t, 0, append(args, "--json")...)
		require.Equal(t, first, second, "JSON output is the same in every run")
		require.Equal(t, table.code, first.code)
		require.Equal(t, 1, strings.Count(first.out, "\n"), "one object")
		got := answer.ProtoReflect().New().Interface()
		require.NoError(t, protojson.Unmarshal([]byte(first.out), got))
		require.True(t, proto.Equal(answer, got), "%v\n%v", answer, got)
	})
}
