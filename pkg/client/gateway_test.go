package client_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/runnelhq/runnel/pkg/client"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"
	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// gateway is a fake gateway: the server's end of connections in memory.
type gateway struct {
	links chan *link

	mu sync.Mutex
	// down, if set, is the error of connecting.
	down error
	// dialed are the times of all attempts to connect.
	dialed []time.Time
}

func newGateway() *gateway { return &gateway{links: make(chan *link, 1000)} }

func (g *gateway) dial(ctx context.Context, _ string, header http.Header) (client.Conn, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dialed = append(g.dialed, time.Now())
	if g.down != nil {
		return nil, g.down
	}
	codec, ok := frame.CodecFor(header.Get("Sec-WebSocket-Protocol"))
	if !ok {
		return nil, errors.New("unknown subprotocol")
	}
	l := &link{codec: codec, toClient: make(chan []byte, 10_000), toServer: make(chan []byte, 10_000), closed: make(chan struct{})}
	g.links <- l
	return (*conn)(l), nil
}

func (g *gateway) setDown(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.down = err
}

// link is the gateway's end of one connection; conn is the client's end.
type link struct {
	codec              frame.Codec
	toClient, toServer chan []byte
	pending            []*clientv1.ClientFrame

	once   sync.Once
	closed chan struct{}
	err    error
}

type conn link

func (c *conn) ReadMessage() ([]byte, error) {
	select {
	case message := <-c.toClient:
		return message, nil
	default:
	}
	select {
	case message := <-c.toClient:
		return message, nil
	case <-c.closed:
		// Frames sent before the close still arrive.
		select {
		case message := <-c.toClient:
			return message, nil
		default:
			return nil, c.err
		}
	}
}

func (c *conn) WriteMessage(message []byte) error {
	select {
	case <-c.closed:
		return c.err
	case c.toServer <- append([]byte(nil), message...):
		return nil
	}
}

func (c *conn) Close() error {
	(*link)(c).end(errors.New("closed by the client"))
	return nil
}

func (l *link) end(err error) {
	l.once.Do(func() {
		l.err = err
		close(l.closed)
	})
}

// cut ends the connection without a close frame, close with a close code.
func (l *link) cut() { l.end(errors.New("connection reset")) }

func (l *link) close(code errcode.CloseCode) {
	l.end(&websocket.CloseError{Code: int(code), Text: code.String()})
}

func (l *link) send(frames ...*clientv1.ServerFrame) {
	var message []byte
	for _, f := range frames {
		message = frame.AppendServer(message, l.codec, f)
	}
	select {
	case l.toClient <- message:
	case <-l.closed:
	}
}

// next returns the next frame from the client; nil if the connection has ended.
func (l *link) next() (*clientv1.ClientFrame, error) {
	for len(l.pending) == 0 {
		select {
		case message := <-l.toServer:
			if err := frame.DecodeClient(l.codec, message, func(f *clientv1.ClientFrame) error {
				if f.GetConnect().GetBodyBytes() {
					l.codec = l.codec.WithBytes()
				}
				l.pending = append(l.pending, f)
				return nil
			}); err != nil {
				return nil, err
			}
		case <-l.closed:
			select {
			case message := <-l.toServer:
				l.toServer <- message
			default:
				return nil, nil
			}
		}
	}
	f := l.pending[0]
	l.pending = l.pending[1:]
	return f, nil
}

// recv returns the next frame from the client that is not an acknowledgement or pong.
func (l *link) recv(t *testing.T) *clientv1.ClientFrame {
	t.Helper()
	for {
		f, err := l.next()
		require.NoError(t, err)
		require.NotNil(t, f, "the connection has ended")
		if f.GetAck() == nil && f.GetPong() == nil {
			return f
		}
	}
}

// recvAck returns the next acknowledgement.
func (l *link) recvAck(t *testing.T) map[string]*clientv1.AckPosition {
	t.Helper()
	for {
		f, err := l.next()
		require.NoError(t, err)
		require.NotNil(t, f, "the connection has ended")
		if f.GetAck() != nil {
			positions := map[string]*clientv1.AckPosition{}
			for _, position := range f.GetAck().GetPositions() {
				positions[position.GetConversationId()] = position
			}
			return positions
		}
	}
}

// silent requires that the client sends no frames now.
func (l *link) silent(t *testing.T) {
	t.Helper()
	synctest.Wait()
	require.Empty(t, l.pending)
	require.Empty(t, l.toServer)
}

// accept waits for a connection and answers its connect.
func (g *gateway) accept(t *testing.T, connected *clientv1.Connected) (*link, *clientv1.Connect) {
	t.Helper()
	l := <-g.links
	f := l.recv(t)
	require.NotNil(t, f.GetConnect())
	if connected.GetUserId() == "" {
		connected.UserId = "alice"
	}
	l.send(&clientv1.ServerFrame{Id: f.GetId(), Message: &clientv1.ServerFrame_Connected{Connected: connected}})
	return l, f.GetConnect()
}

func connected(conversations ...*clientv1.Conversation) *clientv1.Connected {
	return &clientv1.Connected{Conversations: conversations}
}

// history is a conversation's log, made with the rules of the server.
type history struct {
	id     string
	state  *conversation.State
	events []*conversationv1.Event
}

func newHistory(n int) *history {
	command := ids.Command(uuid.Must(uuid.NewV7()).String())
	h := &history{id: string(conversation.GroupID("alice", command))}
	if n > 0 {
		h.apply("alice", string(command), &conversationv1.Body{Action: &conversationv1.Body_Create{Create: &conversationv1.Create{
			Kind: conversationv1.Kind_KIND_GROUP, Members: []string{"bob"},
		}}})
	}
	h.grow(n - 1)
	return h
}

func (h *history) apply(sender, command string, body *conversationv1.Body) (*conversationv1.Event, *conversationv1.Error) {
	encoded, err := conversation.EncodeBody(body)
	if err != nil {
		panic(err)
	}
	facts := conversation.NewFacts(nil)
	for _, need := range conversation.Needs(ids.User(sender), body) {
		if need.Seq <= ids.Seq(h.head()) {
			stored := h.stored(uint64(need.Seq))
			facts.Load(need, &historyv1.Fact{
				Kind: stored.GetEvent().GetKind(), Sender: stored.GetEvent().GetSender(), TimeMs: stored.GetEvent().GetTimeMs(), Row: stored.GetRow(),
				Reactions: h.reactions(uint64(need.Seq), string(need.User)),
			})
		}
	}
	result, refusal := conversation.Apply(h.state, facts, &brokerv1.Command{
		ConversationId: h.id, Sender: sender, CommandId: command, Body: encoded, Salt: make([]byte, 16),
	}, body, time.Now().UnixMilli())
	if refusal != nil {
		return nil, refusal
	}
	h.state = result.State
	h.events = append(h.events, result.Event)
	return result.Event, nil
}

// stored returns a message with its present view row, computed from all later events.
func (h *history) stored(seq uint64) *historyv1.StoredMessage {
	message := &historyv1.StoredMessage{Event: h.events[seq-1], Row: &historyv1.MessageRow{Seq: seq}}
	for _, event := range h.events[seq:] {
		body, err := conversation.DecodeBody(event.GetBody())
		switch {
		case err != nil:
			panic(err)
		case body.GetEdit().GetTarget() == seq:
			message.Edit, message.Row.EditSeq, message.Row.EditTimeMs = event, event.GetSeq(), event.GetTimeMs()
		case body.GetDelete().GetTarget() == seq:
			message.Row.DeletedSeq = event.GetSeq()
		}
	}
	for _, r := range h.reactions(seq, "alice") {
		message.Reactions = append(message.Reactions, &historyv1.ReactionCount{Emoji: r.GetEmoji(), Count: 1, Mine: true})
	}
	return message
}

// reactions returns the reactions of one user to a message.
func (h *history) reactions(seq uint64, user string) (reactions []*historyv1.Reaction) {
	for _, event := range h.events[seq:] {
		body, _ := conversation.DecodeBody(event.GetBody())
		react := body.GetReact()
		switch {
		case react.GetTarget() != seq || event.GetSender() != user:
		case react.GetRemove():
			reactions = slices.DeleteFunc(reactions, func(r *historyv1.Reaction) bool { return r.GetEmoji() == react.GetEmoji() })
		default:
			reactions = append(reactions, &historyv1.Reaction{Target: seq, UserId: user, Emoji: react.GetEmoji(), Seq: event.GetSeq()})
		}
	}
	return reactions
}

// messages returns all messages in their current form.
func (h *history) messages() *clientv1.Messages {
	page := &clientv1.Messages{Head: h.head()}
	for _, event := range h.events {
		if event.GetKind() == conversationv1.EventKind_EVENT_KIND_MESSAGE {
			page.Messages = append(page.Messages, conversation.View(h.stored(event.GetSeq())))
		}
	}
	return page
}

func (h *history) grow(n int) {
	for range n {
		if _, refusal := h.apply("bob", uuid.Must(uuid.NewV7()).String(), text("hello")); refusal != nil {
			panic(refusal.String())
		}
	}
}

func (h *history) head() uint64 { return uint64(len(h.events)) }

func (h *history) info() *clientv1.Conversation {
	return &clientv1.Conversation{ConversationId: h.id, Kind: conversationv1.Kind_KIND_GROUP, Head: h.head(), JoinedSeq: 1, Members: 2}
}

func (h *history) push(seq uint64) *clientv1.ServerFrame {
	return &clientv1.ServerFrame{Message: &clientv1.ServerFrame_Event{Event: frame.ToClient(h.events[seq-1])}}
}

// back undoes every event above seq, like restoring a backup.
func (h *history) back(seq uint64) {
	h.events, h.state = h.events[:seq:seq], nil
	for _, event := range h.events {
		h.state = conversation.Fold(h.state, event)
	}
}

// sent returns events as clients receive them.
func sent(events ...*conversationv1.Event) (decoded []*clientv1.Event) {
	for _, event := range events {
		decoded = append(decoded, frame.ToClient(event))
	}
	return decoded
}

func (h *history) beat() *clientv1.ServerFrame {
	return &clientv1.ServerFrame{Message: &clientv1.ServerFrame_Heartbeat{Heartbeat: &clientv1.Heartbeat{
		Heads: []*clientv1.Position{{ConversationId: h.id, Seq: h.head()}},
	}}}
}

// page answers a read.
func (h *history) page(f *clientv1.ClientFrame) *clientv1.ServerFrame {
	page := &clientv1.Page{Head: h.head()}
	for _, event := range h.events {
		if event.GetSeq() <= f.GetRead().GetAfter() {
			continue
		}
		if len(page.GetEvents()) == int(f.GetRead().GetLimit()) {
			page.More = true
			break
		}
		page.Events = append(page.Events, frame.ToClient(event))
	}
	return &clientv1.ServerFrame{Id: f.GetId(), Message: &clientv1.ServerFrame_Page{Page: page}}
}

func text(s string) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: s}}}
}

func refuse(id uint64, code conversationv1.ErrorCode) *clientv1.ServerFrame {
	return &clientv1.ServerFrame{Id: id, Message: &clientv1.ServerFrame_Error{Error: &conversationv1.Error{Code: code, Message: "no"}}}
}

func commit(f *clientv1.ClientFrame, seq uint64) *clientv1.ServerFrame {
	return &clientv1.ServerFrame{Id: f.GetId(), Message: &clientv1.ServerFrame_Outcome{Outcome: &conversationv1.Outcome{
		ConversationId: f.GetSubmit().GetConversationId(), CommandId: f.GetSubmit().GetCommandId(), Seq: seq,
	}}}
}

// view records what the application has received.
type view struct {
	mu     sync.Mutex
	events map[string][]client.Event
	states []client.State
	broken []error
}

func (v *view) seqs(id string) []uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	var seqs []uint64
	for _, event := range v.events[id] {
		seqs = append(seqs, event.GetSeq())
	}
	return seqs
}

func (v *view) seen() []client.State {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.states)
}

func upTo(first, last uint64) []uint64 {
	var seqs []uint64
	for seq := first; seq <= last; seq++ {
		seqs = append(seqs, seq)
	}
	return seqs
}

// start starts a client that always waits the maximum time between attempts.
func start(t *testing.T, g *gateway, change ...func(*client.Config)) (*client.Client, *view) {
	t.Helper()
	v := &view{events: map[string][]client.Event{}}
	cfg := client.Config{
		URL: "ws://gateway", DeviceID: "phone", Dial: g.dial,
		Token:   func(context.Context) (string, error) { return "token", nil },
		Backoff: client.Backoff{Random: func() float64 { return 1 }},
		OnEvent: func(_ context.Context, event client.Event) {
			v.mu.Lock()
			defer v.mu.Unlock()
			v.events[event.GetConversationId()] = append(v.events[event.GetConversationId()], event)
		},
		OnState: func(state client.State) {
			v.mu.Lock()
			defer v.mu.Unlock()
			v.states = append(v.states, state)
		},
		OnBroken: func(err error) {
			v.mu.Lock()
			defer v.mu.Unlock()
			v.broken = append(v.broken, err)
		},
	}
	for _, change := range change {
		change(&cfg)
	}
	c, err := client.New(cfg)
	require.NoError(t, err)
	require.NoError(t, c.Start(t.Context()))
	t.Cleanup(func() { _ = c.Close() })
	return c, v
}
