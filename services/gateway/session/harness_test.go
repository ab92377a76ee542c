package gateway

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/frame"

	"github.com/runnelhq/runnel/services/gateway/flight"
	"github.com/runnelhq/runnel/services/gateway/metrics"
)

// patience is for what happens in a moment. A test that waits for it in vain fails.
const patience = 2 * time.Second

// stage is a gateway without NATS and without listener, on a store that is a slice of events.
type stage struct {
	t     *testing.T
	g     *Gateway
	store *fakeStore
	logs  *logBuffer
}

type logBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func newStage(t *testing.T) *stage {
	t.Helper()
	var cfg Config
	parser, err := kong.New(&cfg)
	require.NoError(t, err)
	_, err = parser.Parse(nil)
	require.NoError(t, err)
	s := &stage{t: t, store: &fakeStore{level: 1, partitions: 4}, logs: &logBuffer{}}
	g := &Gateway{
		cfg: cfg, partitions: 4, history: s.store, log: slog.New(slog.NewTextHandler(s.logs, nil)),
		metrics: metrics.New(prometheus.NewRegistry()), trace: flight.NewTracer(nil, 0),
		recorder: flight.NewRecorder(64), closed: flight.NewClosedLog(1000), turns: make(chan struct{}, maxTurns),
		conns: map[string]*conn{}, users: map[string]*user{}, messageKinds: conversation.MessageKinds(),
	}
	g.installationLevel.Store(1)
	g.ctx, g.cancel = context.WithCancel(context.WithoutCancel(t.Context()))
	g.gate = newGate(g)
	g.hub, g.acks = newHub(g), &acks{gw: g, news: map[ackKey]*brokerv1.Ack{}}
	s.g = g
	var lanes sync.WaitGroup
	for i := range g.hub.lanes {
		lanes.Go(func() { g.hub.work(g.ctx, &g.hub.lanes[i]) })
	}
	t.Cleanup(func() {
		g.cancel()
		lanes.Wait()
		g.workers.Wait()
		g.writers.Wait()
	})
	return s
}

// room is a room that stands where the store does.
func (s *stage) room() *room {
	r := &room{hub: s.g.hub, id: groupID, key: s.g.recorder.KeyOf(groupID)}
	s.g.hub.mu.Lock()
	s.g.hub.rooms[groupID] = r
	s.g.hub.mu.Unlock()
	require.NoError(s.t, s.g.hub.readHeads(s.t.Context(), []*room{r}, (*room).open))
	return r
}

// client is a connection whose frames the test reads.
type client struct {
	*conn

	t      *testing.T
	frames chan *clientv1.ServerFrame
	closes chan uint16
}

func (s *stage) client(userID string, codec frame.Codec) *client {
	ours, theirs := net.Pipe()
	subprotocol := codec
	if codec == frame.JSONWithBytes {
		subprotocol = frame.JSON
	}
	c := &client{
		t: s.t, frames: make(chan *clientv1.ServerFrame, 1000), closes: make(chan uint16, 1),
		conn: &conn{
			gw: s.g, id: "c-" + userID, number: 1, raw: ours, codec: subprotocol, events: codec, since: time.Now(), done: make(chan struct{}),
			user:   &user{id: userID, commands: rate.NewLimiter(rate.Inf, 1), conns: map[*conn]struct{}{}},
			frames: rate.NewLimiter(rate.Inf, 1),
		},
	}
	c.user.conns[c.conn] = struct{}{}
	s.g.mu.Lock()
	s.g.users[userID] = c.user
	s.g.mu.Unlock()
	var reading sync.WaitGroup
	reading.Go(func() { c.read(theirs) })
	s.t.Cleanup(func() {
		close(c.done)
		s.g.cancel()
		_ = ours.Close()
		_ = theirs.Close()
		reading.Wait()
	})
	return c
}

// read takes WebSocket frames apart until the connection ends.
func (c *client) read(theirs net.Conn) {
	reader := bufio.NewReader(theirs)
	for {
		var head [2]byte
		if _, err := io.ReadFull(reader, head[:]); err != nil {
			return
		}
		size := uint64(head[1])
		switch size {
		case 126:
			var long [2]byte
			_, _ = io.ReadFull(reader, long[:])
			size = uint64(binary.BigEndian.Uint16(long[:]))
		case 127:
			var long [8]byte
			_, _ = io.ReadFull(reader, long[:])
			size = binary.BigEndian.Uint64(long[:])
		}
		data := make([]byte, size)
		if _, err := io.ReadFull(reader, data); err != nil {
			return
		}
		if head[0]&0xf == 8 {
			c.closes <- binary.BigEndian.Uint16(data)
			return
		}
		_ = frame.DecodeServer(c.events, data, func(f *clientv1.ServerFrame) error {
			c.frames <- f
			return nil
		})
	}
}

// next is the next frame that the client gets.
func (c *client) next() *clientv1.ServerFrame {
	c.t.Helper()
	select {
	case f := <-c.frames:
		return f
	case <-time.After(patience):
		require.FailNow(c.t, "the client gets nothing")
		return nil
	}
}

// seqs are those of the next n frames, which must be events.
func (c *client) seqs(n int) (seqs []uint64) {
	c.t.Helper()
	for range n {
		f := c.next()
		require.NotNil(c.t, f.GetEvent(), "%v", f)
		seqs = append(seqs, f.GetEvent().GetSeq())
	}
	return seqs
}

// quiet sends the client a frame of the test's own, and requires that nothing came before it.
func (c *client) quiet() {
	c.t.Helper()
	c.reply(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_TokenExpiring{TokenExpiring: &clientv1.TokenExpiring{ExpiresMs: 7}}})
	f := c.next()
	require.NotNil(c.t, f.GetTokenExpiring(), "%v", f)
}

func (c *client) requireForked(head, seq uint64) {
	c.t.Helper()
	f := c.next().GetForked()
	require.Equal(c.t, groupID, f.GetConversationId())
	require.Equal(c.t, head, f.GetHead())
	require.Equal(c.t, seq, f.GetSeq())
}

// resume takes the client's seats as connect does, in the conversations that the store lists.
func (c *client) resume(positions ...*clientv1.Position) {
	c.t.Helper()
	summaries, _, err := c.gw.listAll(c.t.Context(), c.user.id)
	require.NoError(c.t, err)
	c.takeSeats(summaries, planResume(&clientv1.Connect{Resume: positions}, summaries))
}

func (c *client) seat(id string) *seat {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seats[id]
}

// position is what a client has that has an event.
func position(event *conversationv1.Event) *clientv1.Position {
	return &clientv1.Position{ConversationId: event.GetConversationId(), Seq: event.GetSeq(), Hash: event.GetHash()[:chain.PrefixSize]}
}

// live hands a room events as they come from NATS.
func (s *stage) live(r *room, events ...*conversationv1.Event) {
	var dirty []*conn
	r.live(&brokerv1.Live{Events: events}, newEntries(events), &dirty)
	flushAll(dirty)
}

// fakeStore is a history service that holds one conversation. Fields may be changed with mu.
type fakeStore struct {
	historyv1.HistoryServiceClient

	mu         sync.Mutex
	log        []*conversationv1.Event
	joined     uint64 // of everybody's membership; 0 for 1
	earlier    uint64 // when everybody's earlier membership ended, which began with the first event; 0 for none
	left       uint64 // when everybody's membership ended; 0 while it lasts
	missing    uint64 // an event that the table lacks
	down       bool
	level      uint32
	partitions uint32
	reads      int
	lists      int
	viewed     *historyv1.ReadMessagesRequest
	messages   *historyv1.ReadMessagesResponse
}

func (f *fakeStore) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeStore) put(log []*conversationv1.Event) { f.set(func() { f.log = log }) }

var errDown = status.Error(codes.Unavailable, "away")

func (f *fakeStore) Heads(_ context.Context, request *historyv1.HeadsRequest, _ ...grpc.CallOption) (*historyv1.HeadsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return nil, errDown
	}
	answer := &historyv1.HeadsResponse{}
	if len(f.log) > 0 && slices.Contains(request.GetConversationIds(), f.log[0].GetConversationId()) {
		last := f.log[len(f.log)-1]
		answer.Heads = append(answer.Heads, &historyv1.Head{ConversationId: last.GetConversationId(), Head: last.GetSeq(), HeadHash: last.GetHash()})
	}
	return answer, nil
}

func (f *fakeStore) ListConversations(context.Context, *historyv1.ListConversationsRequest, ...grpc.CallOption) (*historyv1.ListConversationsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lists++
	if f.down {
		return nil, errDown
	}
	answer := &historyv1.ListConversationsResponse{}
	if len(f.log) > 0 && f.left == 0 {
		answer.Conversations = append(answer.Conversations, &historyv1.Summary{
			ConversationId: f.log[0].GetConversationId(), Head: uint64(len(f.log)), JoinedSeq: max(f.joined, 1),
		})
	}
	return answer, nil
}

// Read gives rising pages as the history service does.
func (f *fakeStore) Read(_ context.Context, request *historyv1.ReadRequest, _ ...grpc.CallOption) (*historyv1.ReadResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads++
	if f.down {
		return nil, errDown
	}
	if len(f.log) == 0 {
		return nil, status.Error(codes.NotFound, "no such conversation")
	}
	page := &historyv1.ReadResponse{Head: uint64(len(f.log)), Member: f.left == 0}
	first := request.GetAfter() + 1
	if request.GetViewer() != "" && f.left != 0 {
		page.Head = min(page.GetHead(), f.left)
	}
	hidden := &conversationv1.Range{First: max(first, f.earlier+1), Last: f.joined - 1}
	if request.GetViewer() == "" || f.joined == 0 || hidden.GetFirst() > hidden.GetLast() {
		hidden = &conversationv1.Range{}
	} else {
		page.Hidden = append(page.Hidden, hidden)
	}
	for _, event := range f.log {
		switch seq := event.GetSeq(); {
		case seq < first || seq > page.GetHead() || seq == f.missing || (seq >= hidden.GetFirst() && seq <= hidden.GetLast()):
		case len(page.GetEvents()) == int(request.GetLimit()):
			page.More = true
		default:
			page.Events = append(page.Events, event)
		}
	}
	return page, nil
}

func (f *fakeStore) GetInstallation(context.Context, *historyv1.GetInstallationRequest, ...grpc.CallOption) (*historyv1.GetInstallationResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return nil, errDown
	}
	return &historyv1.GetInstallationResponse{Partitions: f.partitions, Level: f.level}, nil
}

func (f *fakeStore) ReadMessages(_ context.Context, request *historyv1.ReadMessagesRequest, _ ...grpc.CallOption) (*historyv1.ReadMessagesResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.viewed = request
	return f.messages, nil
}

const groupID = "g0123456789abcdefghijklmnop"

// branch goes on after a log with messages that say what branch they are on, up to seq n.
func branch(log []*conversationv1.Event, n int, text string) []*conversationv1.Event {
	log = slices.Clone(log)
	for len(log) < n {
		body := &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: text}}}
		if len(log) == 0 {
			body = &conversationv1.Body{Action: &conversationv1.Body_Create{Create: &conversationv1.Create{
				Kind: conversationv1.Kind_KIND_GROUP, Members: []string{"ann", "bob"},
			}}}
		}
		log = append(log, next(log, "cem", body))
	}
	return log
}

// next is the event that follows a log.
func next(log []*conversationv1.Event, sender string, body *conversationv1.Body) *conversationv1.Event {
	encoded, err := conversation.EncodeBody(body)
	if err != nil {
		panic(err)
	}
	event := &conversationv1.Event{
		ConversationId: groupID, Seq: uint64(len(log) + 1), TimeMs: time.Now().UnixMilli(), Sender: sender,
		CommandId: "0192f3c0-0000-7000-8000-000000000001", Kind: conversation.KindOf(body), Body: encoded,
		Salt: make([]byte, chain.SaltSize), PrevHash: chain.Zero,
	}
	if len(log) > 0 {
		event.PrevHash = log[len(log)-1].GetHash()
	}
	chain.Seal(event)
	return event
}
