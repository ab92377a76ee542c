package inbox_test

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/client/internal/inbox"
	"github.com/runnelhq/runnel/pkg/client/internal/logtest"
	"github.com/runnelhq/runnel/pkg/client/internal/stream"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/protocol"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

const (
	ackDelay = time.Second
	maxRoom  = 200
)

var errRefused = errors.New("refused")

// fixture is an inbox with a fake Program, Server and Commands.
type fixture struct {
	*inbox.Inbox

	// told contains the calls to the program as text. queued contains the events that were not delivered to it yet.
	told   []string
	queued []func()
	room   int
	slow   bool
	// reads and lists contain the unanswered queries to the server.
	reads []inbox.PageRead
	lists []list
	// newest contains the newest committed command of the user by conversation.
	newest        map[string]uint64
	created, lost map[string]bool

	reconnects, woken int
}

type list struct {
	after string
	wait  time.Duration
	done  func(list *clientv1.Conversations, err error)
}

func newFixture(start clientv1.Start) *fixture {
	f := &fixture{room: maxRoom, newest: map[string]uint64{}, created: map[string]bool{}, lost: map[string]bool{}}
	f.Inbox = inbox.New(inbox.Config{
		Start: start, Checker: stream.NewChecker(frame.Proto, false), AckDelay: ackDelay, Log: slog.New(slog.DiscardHandler),
		Backoff: func(failures int) time.Duration { return time.Duration(failures+1) * time.Second },
		Program: f, Server: f, Commands: f,
		Forked: func(conv *inbox.Conversation, from uint64, hash []byte) {
			f.tellf("%s forked %d to %d, hash known: %t", conv.ID(), from, conv.Last(), hash != nil)
			f.hand(conv, conv.Branch(), conv.Last())
		},
		Reconnect: func() { f.reconnects++ },
		Wake:      func() { f.woken++ },
	})
	return f
}

func (f *fixture) tellf(format string, args ...any) {
	f.told = append(f.told, fmt.Sprintf(format, args...))
}

// takeTold returns the calls to the program since the last call.
func (f *fixture) takeTold() string {
	told := strings.Join(f.told, "; ")
	f.told = nil
	return told
}

// hand makes the program return from a callback: at once, or if it is slow, when handAll is called.
func (f *fixture) hand(conv *inbox.Conversation, branch int, seq uint64) {
	if f.slow {
		f.queued = append(f.queued, func() { f.Handed(conv, branch, seq) })
		return
	}
	f.Handed(conv, branch, seq)
}

func (f *fixture) handAll() {
	queued := f.queued
	f.queued = nil
	for _, hand := range queued {
		f.room++
		hand()
	}
}

func (f *fixture) HasRoom() bool        { return f.room > 0 }
func (f *fixture) HasRoomForPage() bool { return f.room >= maxRoom/2 }

func (f *fixture) Event(conv *inbox.Conversation, branch int, came stream.Arrival, _ chain.Content) {
	if came.Event.GetConversationId() != conv.ID() {
		panic("an event of another conversation")
	}
	f.tellf("%d", came.Event.GetSeq())
	if f.slow {
		f.room--
	}
	f.hand(conv, branch, came.Event.GetSeq())
}

func (f *fixture) Hidden(conv *inbox.Conversation, branch int, hidden *clientv1.Hidden) {
	f.tellf("(%d-%d)", hidden.GetFirst(), hidden.GetLast())
	f.hand(conv, branch, hidden.GetLast())
}

func (f *fixture) Begins(id string, after uint64) { f.tellf("%s begins after %d", id, after) }

func (f *fixture) Attached(info *clientv1.Conversation) {
	f.tellf("%s attached", info.GetConversationId())
}

func (f *fixture) Detached(detached *clientv1.Detached) {
	f.tellf("%s detached at %d", detached.GetConversationId(), detached.GetLast())
}
func (f *fixture) Broken(err error) { f.tellf("broken: %v", err) }
func (f *fixture) Receipt(receipt *conversationv1.Receipt) {
	f.tellf("receipt %d", receipt.GetVersion())
}

func (f *fixture) ReadPage(read inbox.PageRead) { f.reads = append(f.reads, read) }

func (f *fixture) List(after string, wait time.Duration, done func(*clientv1.Conversations, error)) {
	f.lists = append(f.lists, list{after, wait, done})
}

func (f *fixture) Newest(id string) uint64 { return f.newest[id] }
func (f *fixture) Created(id string) bool  { return f.created[id] }
func (f *fixture) MarkLost(id string)      { f.lost[id] = true }
func (f *fixture) Lost(id string) bool     { return f.lost[id] }

// connect begins a connection; connected is the gateway's answer.
func (f *fixture) connect(connected *clientv1.Connected) (clientv1.Start, []*clientv1.Position) {
	start, positions := f.Connecting()
	f.Connected(connected)
	return start, positions
}

// Connected is the answer of a gateway with the limits of the protocol.
func (f *fixture) Connected(connected *clientv1.Connected) {
	f.Inbox.Connected(connected, inbox.Limits{
		ResumePositions: protocol.MaxResumePositions, AckPositions: protocol.MaxAckPositions, Page: protocol.MaxPage,
	})
}

// started returns an inbox that is connected and begins with the first event of a log; the program knows of it.
func started(t *testing.T, log *logtest.Log) *fixture {
	t.Helper()
	f := newFixture(clientv1.Start_START_FIRST)
	f.connect(&clientv1.Connected{Conversations: []*clientv1.Conversation{info(log)}})
	require.Equal(t, log.ID+" begins after 0; "+log.ID+" attached", f.takeTold())
	return f
}

func info(log *logtest.Log) *clientv1.Conversation {
	return &clientv1.Conversation{ConversationId: log.ID, Head: log.Head(), JoinedSeq: 1}
}

func (f *fixture) receive(message *clientv1.ServerFrame) { f.Receive(message, time.Now()) }

// push pushes events of a log.
func (f *fixture) push(log *logtest.Log, seqs ...uint64) {
	for _, seq := range seqs {
		f.pushEvent(log.Event(seq))
	}
}

func (f *fixture) pushEvent(event *clientv1.Event) {
	f.receive(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Event{Event: event}})
}

func (f *fixture) hide(log *logtest.Log, first, last uint64) {
	f.receive(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Hidden{Hidden: &clientv1.Hidden{
		ConversationId: log.ID, First: first, Last: last,
	}}})
}

func (f *fixture) beat(logs ...*logtest.Log) {
	beat := &clientv1.Heartbeat{}
	for _, log := range logs {
		beat.Heads = append(beat.Heads, &clientv1.Position{ConversationId: log.ID, Seq: log.Head()})
	}
	f.receive(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Heartbeat{Heartbeat: beat}})
}

func (f *fixture) attach(conversation *clientv1.Conversation) {
	f.receive(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Attached{Attached: &clientv1.Attached{Conversation: conversation}}})
}

func (f *fixture) detach(log *logtest.Log, last uint64) {
	f.receive(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Detached{Detached: &clientv1.Detached{ConversationId: log.ID, Last: last}}})
}

func (f *fixture) fork(log *logtest.Log) {
	f.receive(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Forked{Forked: &clientv1.Forked{ConversationId: log.ID, Head: log.Head()}}})
}

func (f *fixture) receipt(log *logtest.Log, version int64) {
	f.receive(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Receipt{Receipt: &conversationv1.Receipt{ConversationId: log.ID, Version: version}}})
}

// answer answers the oldest query from a log, and returns the query.
func (f *fixture) answer(t *testing.T, log *logtest.Log) inbox.PageRead {
	t.Helper()
	require.NotEmpty(t, f.reads, "there is no query")
	read := f.reads[0]
	f.reads = f.reads[1:]
	require.Equal(t, log.ID, read.ConversationID)
	read.Done(log.Page(read.After(), int(read.Limit)), nil)
	return read
}

// answerAll answers queries until there are no more. It returns the seq after which each query read.
func (f *fixture) answerAll(t *testing.T, logs ...*logtest.Log) (afters []uint64) {
	t.Helper()
	for len(f.reads) > 0 {
		i := slices.IndexFunc(logs, func(log *logtest.Log) bool { return log.ID == f.reads[0].ConversationID })
		after := f.reads[0].After()
		f.answer(t, logs[i])
		afters = append(afters, after)
	}
	return afters
}

// acks returns the positions of the next acknowledgement as text: delivered, and read if it is set.
func (f *fixture) acks() (positions []string) {
	for _, position := range f.TakeAck().GetPositions() {
		text := fmt.Sprintf("%s %d", position.GetConversationId(), position.GetDelivered())
		if position.GetRead() > 0 {
			text += fmt.Sprintf(" read %d", position.GetRead())
		}
		positions = append(positions, text)
	}
	return positions
}
