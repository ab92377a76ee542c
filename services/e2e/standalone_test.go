package e2e_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/client"
	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/settings"
	"github.com/runnelhq/runnel/pkg/telemetry"
	"github.com/runnelhq/runnel/pkg/telemetry/telemetrytest"
	"github.com/runnelhq/runnel/services/gateway"
	"github.com/runnelhq/runnel/services/standalone"
)

const secret = "an end-to-end secret of 32 bytes!"

// patience bounds waits that only a defect makes long. No test measures by it.
const patience = 30 * time.Second

// suite is a standalone Runnel in this process: real NATS, real SQLite, real WebSockets.
type suite struct {
	t    *testing.T
	s    *standalone.Standalone
	logs *telemetrytest.Log
	tel  *telemetry.Telemetry
	stop func()
}

// defaults returns the default settings.
func defaults(t *testing.T) standalone.Config {
	t.Helper()
	var cfg standalone.Config
	parser, err := settings.New("test", "", &cfg)
	require.NoError(t, err)
	_, err = parser.Parse(nil)
	require.NoError(t, err)
	cfg.Gateway.Listen, cfg.RPC.Listen, cfg.Admin.Listen = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	cfg.NATS.Partitions, cfg.NATS.MaxBytes = 4, 8<<20
	cfg.Auth.HMACSecret = secret
	return cfg
}

func start(t *testing.T, change func(*standalone.Config)) *suite {
	t.Helper()
	cfg := defaults(t)
	cfg.DataDir = t.TempDir()
	if change != nil {
		change(&cfg)
	}
	return run(t, cfg)
}

func run(t *testing.T, cfg standalone.Config) *suite {
	t.Helper()
	logs := &telemetrytest.Log{}
	cfg.Telemetry.LogLevel, cfg.Telemetry.LogFormat = "debug", "json"
	tel, err := telemetry.Start(t.Context(), "test", cfg.Telemetry, logs)
	require.NoError(t, err)
	s, err := standalone.New(t.Context(), cfg, tel)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			require.NoError(t, <-done)
		})
	}
	t.Cleanup(stop)
	return &suite{t: t, s: s, logs: logs, tel: tel, stop: stop}
}

func (s *suite) url() string { return "ws://" + s.s.Addr().String() + gateway.Path }

func token(tb testing.TB, user string) string {
	tb.Helper()
	signed, err := auth.Mint([]byte(secret), ids.User(user), time.Hour, time.Now(), "", "")
	require.NoError(tb, err)
	return signed
}

// raw is a client that can send any bytes.
type raw struct {
	t     *testing.T
	ws    *websocket.Conn
	codec frame.Codec
	next  uint64
	queue []*clientv1.ServerFrame
}

func (s *suite) login(user string, codec frame.Codec, resume ...*clientv1.Position) *raw {
	s.t.Helper()
	return loginAt(s.t, s.url(), user, codec, resume...)
}

func dialAt(t *testing.T, url string, codec frame.Codec) *raw {
	t.Helper()
	return dialWith(t, &net.Dialer{}, url, codec)
}

// dialWith connects through sockets that the test supplies.
func dialWith(t *testing.T, sockets *net.Dialer, url string, codec frame.Codec) *raw {
	t.Helper()
	dialer := websocket.Dialer{Subprotocols: []string{codec.Subprotocol()}, NetDialContext: sockets.DialContext}
	ws, response, err := dialer.DialContext(t.Context(), url, nil)
	require.NoError(t, err)
	_ = response.Body.Close()
	t.Cleanup(func() { _ = ws.Close() })
	return &raw{t: t, ws: ws, codec: codec}
}

func loginAt(t *testing.T, url, user string, codec frame.Codec, resume ...*clientv1.Position) *raw {
	t.Helper()
	return dialAt(t, url, codec).connect(user, resume...)
}

// connect authenticates as a user.
func (r *raw) connect(user string, resume ...*clientv1.Position) *raw {
	r.t.Helper()
	answer := r.ask(&clientv1.ClientFrame{Request: &clientv1.ClientFrame_Connect{Connect: &clientv1.Connect{
		Token: token(r.t, user), DeviceId: "test", Start: clientv1.Start_START_FIRST, Resume: resume,
	}}})
	require.NotNil(r.t, answer.GetConnected(), "%v", answer)
	return r
}

func (r *raw) send(f *clientv1.ClientFrame) {
	r.t.Helper()
	r.sendText(string(frame.AppendClient(nil, r.codec, f)))
}

func (r *raw) sendText(data string) {
	r.t.Helper()
	require.NoError(r.t, r.ws.WriteMessage(r.codec.MessageType(), []byte(data)))
}

// receive returns the next frame. It answers no heartbeats: tests are shorter.
func (r *raw) receive() (*clientv1.ServerFrame, error) {
	for len(r.queue) == 0 {
		_ = r.ws.SetReadDeadline(time.Now().Add(patience))
		_, data, err := r.ws.ReadMessage()
		if err != nil {
			return nil, err
		}
		err = frame.DecodeServer(r.codec, data, func(f *clientv1.ServerFrame) error {
			r.queue = append(r.queue, f)
			if f.GetHeartbeat() != nil {
				pong := &clientv1.ClientFrame{Request: &clientv1.ClientFrame_Pong{Pong: &clientv1.Pong{}}}
				_ = r.ws.WriteMessage(r.codec.MessageType(), frame.AppendClient(nil, r.codec, pong)) // a failure shows when reading
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	f := r.queue[0]
	r.queue = r.queue[1:]
	return f, nil
}

// until reads frames until one matches.
func (r *raw) until(fits func(*clientv1.ServerFrame) bool) *clientv1.ServerFrame {
	r.t.Helper()
	for {
		f, err := r.receive()
		require.NoError(r.t, err)
		if fits(f) {
			return f
		}
	}
}

func (r *raw) ask(f *clientv1.ClientFrame) *clientv1.ServerFrame {
	r.t.Helper()
	r.next++
	f.Id = r.next
	r.send(f)
	return r.until(func(answer *clientv1.ServerFrame) bool { return answer.GetId() == f.GetId() })
}

func (r *raw) event(seq uint64) *clientv1.Event {
	r.t.Helper()
	return r.until(func(f *clientv1.ServerFrame) bool { return f.GetEvent().GetSeq() == seq }).GetEvent()
}

// closed reads until the connection ends and returns the code.
func (r *raw) closed() errcode.CloseCode {
	r.t.Helper()
	for {
		if _, err := r.receive(); err != nil {
			return closeCode(r.t, err)
		}
	}
}

func closeCode(t *testing.T, err error) errcode.CloseCode {
	t.Helper()
	var closed *websocket.CloseError
	require.ErrorAs(t, err, &closed)
	return errcode.CloseCode(closed.Code)
}

func submit(conversationID string, body *conversationv1.Body) *clientv1.ClientFrame {
	return &clientv1.ClientFrame{Request: &clientv1.ClientFrame_Submit{Submit: &clientv1.Submit{
		ConversationId: conversationID, CommandId: uuid.Must(uuid.NewV7()).String(), Body: body,
	}}}
}

func text(s string) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: s}}}
}

// direct opens a direct conversation with bob.
func direct() *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_Create{Create: &conversationv1.Create{Kind: conversationv1.Kind_KIND_DIRECT, Members: []string{"bob"}}}}
}

func group(members ...string) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_Create{Create: &conversationv1.Create{Kind: conversationv1.Kind_KIND_GROUP, Name: "group", Members: members}}}
}

func TestTwoPeopleChat(t *testing.T) {
	for _, codec := range []frame.Codec{frame.JSON, frame.Proto} {
		t.Run(codec.String(), func(t *testing.T) {
			s := start(t, nil)
			ann, bob := s.login("ann", codec), s.login("bob", codec)
			id := ann.ask(submit("", direct())).GetOutcome().GetConversationId()
			require.NotEmpty(t, id)
			require.Equal(t, id, bob.until(func(f *clientv1.ServerFrame) bool { return f.GetAttached() != nil }).GetAttached().GetConversation().GetConversationId())
			require.Equal(t, uint64(2), ann.ask(submit(id, text("hello"))).GetOutcome().GetSeq())
			require.Equal(t, "hello", bob.event(2).GetBody().GetMessage().GetText())
			require.Equal(t, uint64(3), bob.ask(submit(id, text("hi"))).GetOutcome().GetSeq())
			require.Equal(t, "bob", ann.event(3).GetSender())

			bob.send(&clientv1.ClientFrame{Request: &clientv1.ClientFrame_Ack{Ack: &clientv1.Ack{
				Positions: []*clientv1.AckPosition{{ConversationId: id, Delivered: 3, Read: 2}},
			}}})
			ann.until(func(f *clientv1.ServerFrame) bool {
				receipt := f.GetReceipt()
				read := receipt.GetRead()
				return len(read) > 0 && read[len(read)-1].GetSeq() == 2 && read[len(read)-1].GetMembers() == 2
			})
			members := ann.ask(&clientv1.ClientFrame{Request: &clientv1.ClientFrame_ListMembers{ListMembers: &clientv1.ListMembers{ConversationId: id}}})
			require.Len(t, members.GetMembers().GetMembers(), 2)
		})
	}
}

func TestARepeatedCommandGivesItsFirstOutcome(t *testing.T) {
	s := start(t, nil)
	ann := s.login("ann", frame.JSON)
	create := submit("", group("bob"))
	first := ann.ask(create).GetOutcome()
	id := first.GetConversationId()
	require.Equal(t, uint64(1), ann.ask(create).GetOutcome().GetSeq(), "a create that looks refused by state")
	message := submit(id, text("once"))
	seq := ann.ask(message).GetOutcome().GetSeq()
	again := s.login("ann", frame.Proto).ask(message).GetOutcome()
	require.Equal(t, seq, again.GetSeq())
	require.True(t, again.GetRepeated())
	message.GetSubmit().Body = text("twice")
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_IDEMPOTENCY_CONFLICT, ann.ask(message).GetOutcome().GetError().GetCode())
}

func TestMembersSeeWhatHappenedWhileTheyWereMembers(t *testing.T) {
	s := start(t, nil)
	ann, bob := s.login("ann", frame.JSON), s.login("bob", frame.JSON)
	id := ann.ask(submit("", group("cem"))).GetOutcome().GetConversationId()
	act := func(body *conversationv1.Body) {
		t.Helper()
		outcome := ann.ask(submit(id, body)).GetOutcome()
		require.Nil(t, outcome.GetError())
	}
	add := &conversationv1.Body{Action: &conversationv1.Body_AddMembers{AddMembers: &conversationv1.AddMembers{Members: []string{"bob"}}}}
	remove := &conversationv1.Body{Action: &conversationv1.Body_RemoveMember{RemoveMember: &conversationv1.RemoveMember{Member: "bob"}}}
	act(text("before")) // 2
	act(add)            // 3
	act(text("during")) // 4
	act(remove)         // 5
	act(text("after"))  // 6
	var seen []uint64
	bob.until(func(f *clientv1.ServerFrame) bool {
		if f.GetEvent() != nil {
			seen = append(seen, f.GetEvent().GetSeq())
		}
		return f.GetDetached() != nil
	})
	require.Equal(t, []uint64{3, 4, 5}, seen)
	act(add)           // 7
	act(text("again")) // 8
	require.Equal(t, uint64(8), bob.event(8).GetSeq())

	// A user who comes back gets the events of both memberships, and the stretch between as hidden.
	back := s.login("bob", frame.JSON, &clientv1.Position{ConversationId: id, Seq: 3})
	var got []uint64
	var hidden []*clientv1.Hidden
	back.until(func(f *clientv1.ServerFrame) bool {
		if f.GetHidden() != nil {
			hidden = append(hidden, f.GetHidden())
		}
		if f.GetEvent() != nil {
			got = append(got, f.GetEvent().GetSeq())
		}
		return f.GetEvent().GetSeq() == 8
	})
	require.Equal(t, []uint64{4, 5, 7, 8}, got)
	require.Len(t, hidden, 1)
	require.Equal(t, []uint64{6, 6}, []uint64{hidden[0].GetFirst(), hidden[0].GetLast()})

	page := bob.ask(&clientv1.ClientFrame{Request: &clientv1.ClientFrame_Read{Read: &clientv1.Read{ConversationId: id, Backward: true, Limit: 3}}}).GetPage()
	require.Equal(t, uint64(8), page.GetEvents()[0].GetSeq())
	require.True(t, page.GetMore())
	stranger := s.login("eve", frame.JSON).ask(&clientv1.ClientFrame{Request: &clientv1.ClientFrame_Read{Read: &clientv1.Read{ConversationId: id}}})
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND, stranger.GetError().GetCode())
}

func TestEverythingIsThereAfterARestart(t *testing.T) {
	cfg := defaults(t)
	cfg.DataDir = t.TempDir()
	s := run(t, cfg)
	ann := s.login("ann", frame.JSON)
	id := ann.ask(submit("", direct())).GetOutcome().GetConversationId()
	for range 20 {
		ann.ask(submit(id, text("kept")))
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.stop()
	}()
	require.Equal(t, errcode.CloseGoingAway, ann.closed())
	<-stopped
	s = run(t, cfg)
	bob := s.login("bob", frame.Proto, &clientv1.Position{ConversationId: id, Seq: 10})
	require.Equal(t, uint64(11), bob.until(func(f *clientv1.ServerFrame) bool { return f.GetEvent() != nil }).GetEvent().GetSeq())
	bob.event(21)
	require.Equal(t, uint64(22), bob.ask(submit(id, text("and on"))).GetOutcome().GetSeq())
}

func TestTheGoClientAgainstTheRealThing(t *testing.T) {
	s := start(t, nil)
	events := make(chan client.Event, 1000)
	connect := func(user string, onEvent func(context.Context, client.Event)) *client.Client {
		c, err := client.New(client.Config{
			URL: s.url(), DeviceID: user + "-1", Start: clientv1.Start_START_FIRST, OnEvent: onEvent,
			Token: func(context.Context) (string, error) { return token(t, user), nil },
		})
		require.NoError(t, err)
		require.NoError(t, c.Start(t.Context()))
		t.Cleanup(func() { require.NoError(t, c.Close()) })
		require.NoError(t, c.Ready(t.Context()))
		return c
	}
	connect("bob", func(_ context.Context, e client.Event) { events <- e })
	ann := connect("ann", nil)
	id, err := ann.OpenDirect(t.Context(), "bob")
	require.NoError(t, err)
	for range 100 {
		_, err := ann.Send(t.Context(), id, "m")
		require.NoError(t, err)
	}
	for seq := uint64(1); seq <= 101; seq++ {
		require.Equal(t, seq, (<-events).GetSeq())
	}
	require.Zero(t, ann.Stats().GapsSeen)
}

func TestHealthTellsTheTruth(t *testing.T) {
	s := start(t, nil)
	for path, want := range map[string]string{"/healthz": "", "/readyz": `"history"`, "/metrics": "runnel_gateway_connections 0"} {
		var code int
		var body []byte
		require.Eventually(t, func() bool { // it is ready once the worker has its leases
			response, err := http.Get("http://" + s.s.AdminAddr() + path)
			require.NoError(t, err)
			body, err = io.ReadAll(response.Body)
			require.NoError(t, err)
			require.NoError(t, response.Body.Close())
			code = response.StatusCode
			return code == http.StatusOK
		}, patience, 10*time.Millisecond, "%s: %d %s", path, code, body)
		require.Contains(t, string(body), want)
	}
}
