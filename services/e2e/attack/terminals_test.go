package attack_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/telemetry/telemetrytest"
	"github.com/runnelhq/runnel/pkg/terminal/terminaltest"
	"github.com/runnelhq/runnel/services/e2e/launch"
	"github.com/runnelhq/runnel/services/gateway"
)

var terminals = []attack{
	{
		name: "text on the terminals of others", tries: "messages, edits, names of groups, reactions, metadata and a user's name of marks of direction, forged lines, OSC sequences and floods of combining characters, to users of runnel chat and operators with runnel admin",
		seen: "every line of the real programs is theirs, and no character steers a terminal", bound: bound{sockets: 8, megabytes: 64, calls: 60}, run: deface,
	},
	{
		name: "a server that steers terminals", tries: "a gateway that answers runnel chat, and a worker that answers every command of runnel admin, with ESC, OSC, CR LF, NUL and marks of direction in every text, in errors and in the reason of a close",
		seen: "the same", bound: bound{megabytes: 64}, run: impersonate,
	},
}

// command prepares a run of the real runnel.
func (s *target) command(args ...string) *exec.Cmd {
	s.Helper()
	built, err := programs()
	require.NoError(s, err)
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	s.Cleanup(cancel)
	command := exec.CommandContext(ctx, built[launch.Standalone], args...)
	command.Env = []string{"RUNNEL_AUTH_HMAC_SECRET=" + secret}
	return command
}

// admin runs runnel admin as a table and as JSON, and checks that what it prints is harmless. It returns the table.
func (s *target) admin(address string, args ...string) (table string) {
	s.Helper()
	for _, flags := range [][]string{{"--json"}, nil} {
		command := s.command(append(append([]string{"admin", "--address", address, "--timeout", "15s"}, flags...), args...)...)
		var out, errs bytes.Buffer
		command.Stdout, command.Stderr = &out, &errs
		var exit *exec.ExitError
		if err := command.Run(); err != nil && !errors.As(err, &exit) {
			require.NoError(s, err)
		}
		require.NotEqual(s, 2, command.ProcessState.ExitCode(), "%v: %s", args, &errs)
		printed := out.String()
		if flags != nil {
			printed = strings.ReplaceAll(printed, "\u0301", "") // JSON keeps how many there are
		}
		require.NoError(s, terminaltest.Check(printed), "%v", args)
		require.NoError(s, terminaltest.Check(errs.String()), "%v", args)
		table = out.String()
	}
	return table
}

// chatting is a run of runnel chat.
type chatting struct {
	s     *target
	run   *exec.Cmd
	in    io.WriteCloser
	shown *telemetrytest.Log // standard output and standard error
}

func (s *target) chat(url string, args ...string) *chatting {
	s.Helper()
	c := &chatting{s: s, run: s.command(append([]string{"chat", "bob", "--url", url}, args...)...), shown: &telemetrytest.Log{}}
	c.run.Stdout, c.run.Stderr = c.shown, c.shown
	var err error
	c.in, err = c.run.StdinPipe()
	require.NoError(s, err)
	require.NoError(s, c.run.Start())
	return c
}

func (c *chatting) types(lines ...string) {
	c.s.Helper()
	_, err := io.WriteString(c.in, strings.Join(lines, "\n")+"\n")
	require.NoError(c.s, err)
}

// awaits waits until the program shows a text.
func (c *chatting) awaits(text string) {
	c.s.Helper()
	require.Eventually(c.s, func() bool { return strings.Contains(c.shown.String(), text) }, patience, 10*time.Millisecond, "%s", c.shown)
}

// ends closes the input, waits for the program, and checks everything that it showed.
func (c *chatting) ends() {
	c.s.Helper()
	_ = c.in.Close()
	var exit *exec.ExitError
	if err := c.run.Wait(); err != nil && !errors.As(err, &exit) {
		require.NoError(c.s, err)
	}
	require.NoError(c.s, terminaltest.Check(c.shown.String()))
}

func deface(s *target) {
	const osc = "\x1b]0;owned\a\x1b[2J\r\n" + terminaltest.ForgedLine
	const user = "שלום [bob] eve"
	userID, err := conversation.MapUser(user)
	require.NoError(s, err)
	eve := s.socket()
	connect := &clientv1.Connect{DeviceId: "d", Client: `\x1b[2J`, Token: signedClaims(s, jose.HS256, s.secret, "", "JWT", map[string]any{
		"sub": user, "exp": time.Now().Add(time.Hour).Unix(),
	})}
	answer, err := eve.ask(&clientv1.ClientFrame{Request: &clientv1.ClientFrame_Connect{Connect: connect}})
	require.NoError(s, err)
	require.Equal(s, string(userID), answer.GetConnected().GetUserId())
	message := func(text string, metadata map[string]string) *conversationv1.Body {
		return &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: text, Metadata: metadata}}}
	}
	group := eve.do("", &conversationv1.Body{Action: &conversationv1.Body_Create{Create: &conversationv1.Create{
		Kind: conversationv1.Kind_KIND_GROUP, Name: "\u202e[bob]\u2066\u200b" + strings.Repeat("Z\u0301\u0301\u0301", 20), Members: []string{"bob"},
	}}}).GetConversationId()
	eve.say() // in a direct conversation
	bob := s.chat("ws://"+s.address("gateway")+gateway.Path, "--codec", "json")
	var last uint64
	for _, text := range shown {
		last = eve.do(group, message(text, map[string]string{"k": osc})).GetSeq()
		require.Nil(s, eve.do(group, &conversationv1.Body{Action: &conversationv1.Body_Edit{Edit: &conversationv1.Edit{
			Target: last, Text: text + text, Metadata: map[string]string{"k": osc},
		}}}).GetError())
	}
	require.Nil(s, eve.do(group, &conversationv1.Body{Action: &conversationv1.Body_React{React: &conversationv1.React{Target: last, Emoji: "\u202e\u2066\u200b!"}}}).GetError())
	require.Nil(s, eve.do(group, &conversationv1.Body{Action: &conversationv1.Body_Rename{Rename: &conversationv1.Rename{Name: "\u2067" + terminaltest.ForgedLine}}}).GetError())
	seq := eve.do(group, message("the end", nil)).GetSeq()
	bob.awaits("the end")
	bob.types("/list", "/go 1", "/go 2", "/react 2 \u202e", "/unreact 2 "+strings.Repeat("\u0301", 40), "/add "+user, "/open \u202e", "/\x1b[2J")
	bob.awaits("unknown command")
	s.during()
	for _, args := range [][]string{
		{"status"},
		{"connections", "list"},
		{"users", "sessions", string(userID)},
		{"users", "sessions", user},
		{"conversations", "list", "--user", string(userID)},
		{"conversations", "show", group},
		{"conversations", "members", group},
		{"conversations", "verify", group},
		{"partitions", "list"},
		{"dead-letters", "list"},
		{"conversations", "show", "\u202e" + osc},
	} {
		s.admin(s.address("rpc"), args...)
	}
	require.Contains(s, s.admin(s.address("rpc"), "conversations", "show", group), terminaltest.ForgedLine, "the name is shown, harmless")
	require.NotEmpty(s, s.admin(s.address("rpc"), "explain", "--user", "bob", "--conversation", group, "--seq", strconv.FormatUint(seq, 10)))
	bob.ends()
	eve.leave()
}

// steered are the commands of runnel admin; those that change something are answered by a worker that is none.
var steered = [][]string{
	{"status"},
	{"connections", "list"},
	{"connections", "inspect", "x"},
	{"connections", "disconnect", "x"},
	{"users", "sessions", "bob"},
	{"users", "revoke", "bob"},
	{"conversations", "list", "--user", "bob"},
	{"conversations", "show", "g"},
	{"conversations", "members", "g"},
	{"conversations", "verify", terminaltest.Text[:9]},
	{"partitions", "list"},
	{"partitions", "move", "1", "\x1b[2J"},
	{"dead-letters", "list"},
	{"dead-letters", "show", "x"},
	{"dead-letters", "retry", "x"},
	{"dead-letters", "drop", "--yes", "\x1b[2J"},
	{"explain", "--user", "bob", "--conversation", "g", "--seq", "1"},
	{"level"},
	{"level", "--raise", "2"},
	{"erase", "g", "--seq", "1", "--yes"},
	{"backup", "mark", "--now"},
}

func impersonate(s *target) {
	s.during()
	asked := map[string]bool{}
	var refuses atomic.Bool
	listener, err := (&net.ListenConfig{}).Listen(s.Context(), "tcp", "127.0.0.1:0")
	require.NoError(s, err)
	worker := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		name, _ := grpc.MethodFromServerStream(stream)
		name = name[strings.LastIndexByte(name, '/')+1:]
		method := adminv1.File_runnel_admin_v1_admin_proto.Services().ByName("AdminService").Methods().ByName(protoreflect.Name(name))
		if err := stream.RecvMsg(dynamicpb.NewMessage(method.Input())); err != nil {
			return err
		}
		asked[name] = true
		if refuses.Load() {
			return status.Error(codes.InvalidArgument, terminaltest.Text)
		}
		answer := dynamicpb.NewMessage(method.Output())
		terminaltest.Spoil(answer)
		return stream.SendMsg(answer)
	}))
	served := make(chan error, 1)
	go func() { served <- worker.Serve(listener) }()
	for _, refuse := range []bool{false, true} {
		refuses.Store(refuse)
		for _, args := range steered {
			s.admin(listener.Addr().String(), args...)
		}
	}
	worker.Stop()
	require.NoError(s, <-served)
	for _, method := range adminv1.AdminService_ServiceDesc.Methods {
		require.True(s, asked[method.MethodName], "add a command that calls %s", method.MethodName)
	}

	for _, codec := range []frame.Codec{frame.Proto, frame.JSON} {
		hostile := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { steering(w, r, codec) }))
		bob := s.chat("ws"+strings.TrimPrefix(hostile.URL, "http")+gateway.Path, "--codec", codec.String())
		bob.awaits("deleted #2")
		bob.types("/list", "/go 1", "hello", "/edit 1 x", "/open eve")
		bob.awaits("closed by the gateway")
		bob.ends()
		require.Contains(s, bob.shown.String(), "reacted to #2", "the events were shown")
		hostile.Close()
	}
}

// steering is a gateway that sends everything that it can send, with hostile texts, refuses what it is asked, and closes.
func steering(w http.ResponseWriter, r *http.Request, codec frame.Codec) {
	upgrader := websocket.Upgrader{Subprotocols: []string{codec.Subprotocol()}}
	ws, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer func() { _ = ws.Close() }()
	kind, answers := websocket.TextMessage, frame.JSONWithBytes
	if codec == frame.Proto {
		kind, answers = websocket.BinaryMessage, frame.Proto
	}
	send := func(f *clientv1.ServerFrame) { _ = ws.WriteMessage(kind, frame.AppendServer(nil, answers, f)) }
	const evil = "\x1b]0;owned\a"
	requests := 0
	for {
		_, message, err := ws.ReadMessage()
		if err != nil {
			return
		}
		_ = frame.DecodeClient(codec, message, func(f *clientv1.ClientFrame) error {
			switch {
			case f.GetConnect() != nil:
				send(&clientv1.ServerFrame{Id: f.GetId(), Message: &clientv1.ServerFrame_Connected{Connected: &clientv1.Connected{
					UserId: "bob", ConnectionId: terminaltest.Text,
					Conversations: []*clientv1.Conversation{{ConversationId: evil, Name: terminaltest.Text, Head: 8, JoinedSeq: 1, Peer: terminaltest.Text}},
				}}})
				for _, event := range hostileLog(evil) {
					send(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Event{Event: frame.ToClient(event)}})
				}
				send(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Error{Error: &conversationv1.Error{Message: terminaltest.Text, Field: terminaltest.Text}}})
				send(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Detached{Detached: &clientv1.Detached{ConversationId: terminaltest.Text}}})
			case f.GetId() != 0:
				send(&clientv1.ServerFrame{Id: f.GetId(), Message: &clientv1.ServerFrame_Error{Error: &conversationv1.Error{
					Code: conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN, Message: terminaltest.Text, Field: terminaltest.Text,
				}}})
				if requests++; requests == 3 {
					_ = ws.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(int(errcode.CloseProtocol), strings.ToValidUTF8(terminaltest.Text[:120], "")))
				}
			}
			return nil
		})
	}
}

// hostileLog is a log that verifies, with hostile texts in events of every kind.
func hostileLog(id string) (events []*conversationv1.Event) {
	const evil = "eve\x1b[2J"
	prev := chain.Zero
	for _, body := range []*conversationv1.Body{
		{Action: &conversationv1.Body_Create{Create: &conversationv1.Create{Kind: conversationv1.Kind_KIND_GROUP, Name: terminaltest.Text, Members: []string{evil}}}},
		{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: terminaltest.Text, Metadata: map[string]string{"k": terminaltest.Text}}}},
		{Action: &conversationv1.Body_Edit{Edit: &conversationv1.Edit{Target: 2, Text: terminaltest.Text}}},
		{Action: &conversationv1.Body_React{React: &conversationv1.React{Target: 2, Emoji: terminaltest.Text}}},
		{Action: &conversationv1.Body_Rename{Rename: &conversationv1.Rename{Name: terminaltest.Text}}},
		{Action: &conversationv1.Body_AddMembers{AddMembers: &conversationv1.AddMembers{Members: []string{terminaltest.Text, evil}}}},
		{Action: &conversationv1.Body_RemoveMember{RemoveMember: &conversationv1.RemoveMember{Member: terminaltest.Text}}},
		{Action: &conversationv1.Body_Delete{Delete: &conversationv1.Delete{Target: 2}}},
	} {
		encoded, err := body.MarshalVT()
		if err != nil {
			panic(err)
		}
		event := &conversationv1.Event{
			ConversationId: id, Seq: uint64(len(events) + 1), TimeMs: 1, Sender: terminaltest.Text, CommandId: terminaltest.Text, Kind: conversation.KindOf(body),
			Body: encoded, Salt: bytes.Repeat([]byte{7}, 16), PrevHash: prev, Format: chain.Format,
		}
		chain.Seal(event)
		prev = event.GetHash()
		events = append(events, event)
	}
	return events
}
