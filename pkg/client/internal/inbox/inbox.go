// Package inbox holds the conversations of the user. It follows the gateway's reports about them, reads missing events,
// and hands the events of each conversation to the program in order, each exactly once. It does no I/O: it requests pages
// through a Server, and passes events to the program through a Program.
package inbox

import (
	"log/slog"
	"time"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/client/internal/stream"
	"github.com/runnelhq/runnel/pkg/client/internal/tracing"
	"github.com/runnelhq/runnel/pkg/protocol"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// Config is what an Inbox depends on. All fields are required.
type Config struct {
	// Start is the starting point of conversations that the client does not know yet.
	Start clientv1.Start
	// Checker verifies events.
	Checker *stream.Checker
	// AckDelay is how long acknowledgements are collected before they are sent; a negative value sends them at once.
	AckDelay time.Duration
	// Backoff returns how long to wait after this many consecutive failures, counted from 0.
	Backoff func(failures int) time.Duration
	Log     *slog.Logger

	Program  Program
	Server   Server
	Commands Commands
	// Forked is called after the log of a conversation went back, and the conversation with it. from is the position
	// before; Last is the present position. LastHash is nil if the hash is not known.
	Forked func(conv *Conversation, from uint64, hash []byte)
	// Reconnect ends the connection. The next connection begins at the present positions of the conversations.
	Reconnect func()
	// Wake is called when AckDue becomes earlier.
	Wake func()
}

// Program receives the events and changes of the conversations. Its methods only queue.
type Program interface {
	// HasRoom returns false if events must wait. HasRoomForPage returns false if reading more events must wait.
	HasRoom() bool
	HasRoomForPage() bool
	Event(conv *Conversation, branch int, came stream.Arrival, content chain.Content)
	Hidden(conv *Conversation, branch int, hidden *clientv1.Hidden)
	// Begins receives the seq after which a conversation begins.
	Begins(conversationID string, after uint64)
	Attached(conversation *clientv1.Conversation)
	Detached(detached *clientv1.Detached)
	// Broken receives the *chain.Broken of a conversation whose log contradicts itself.
	Broken(err error)
	Receipt(receipt *conversationv1.Receipt)
}

// Server answers queries asynchronously, over this connection or a later one.
type Server interface {
	ReadPage(read PageRead)
	// List requests the conversations after an id, after a wait. The query ends with the connection.
	List(after string, wait time.Duration, done func(list *clientv1.Conversations, err error))
}

// PageRead requests a page of a conversation.
type PageRead struct {
	ConversationID string
	// After is called when the query is sent, so that events pushed before then are not read again.
	After func() uint64
	Limit uint32
	// Wait is how long to wait before the query is sent.
	Wait time.Duration
	Done func(page *clientv1.Page, err error)
}

// Commands gives access to the user's own committed commands, as far as the client still has them.
type Commands interface {
	// Newest returns the seq of the newest command in a conversation; 0 if there is none.
	Newest(conversationID string) uint64
	// Created returns true if the command that created the conversation is among the commands.
	Created(conversationID string) bool
	// MarkLost records that the server no longer knows the conversation. Lost returns true if MarkLost was called for the
	// conversation.
	MarkLost(conversationID string)
	Lost(conversationID string) bool
}

// Inbox holds the conversations of the user. It is not safe for concurrent use: the caller's lock guards it.
type Inbox struct {
	env           *env
	conversations map[string]*Conversation
	// listed means that the client knows every conversation that the user was in at the first connection. Later unknown
	// conversations are new ones.
	listed bool
	// attempt is the connection that is being made; nil if there is none.
	attempt *connection
}

// env is shared by the conversations of an inbox: their dependencies, and their turns for reading.
type env struct {
	Config

	// connection is the present connection; nil if there is none.
	connection *connection
	// limits are the limits of the current or latest gateway. Before the first connection they are the limits of the
	// protocol.
	limits Limits
	// fills are the conversations whose pages are read. searches are the conversations that are searched for a fork.
	fills, searches turns
	// catchingUp contains the conversations whose backlog may still arrive.
	catchingUp map[*Conversation]catchUp
	acks       acks
	// forget is called with a conversation that has ended.
	forget func(conv *Conversation)
	closed bool
	stats  Stats
}

// Stats contains the counters of an inbox.
type Stats struct {
	Events, Hidden, RepeatsDropped, GapsSeen, PagesRead, EventsPutOff, StraysDropped, ChainBreaks, Forks, Acks uint64
}

// New makes an inbox without conversations.
func New(cfg Config) *Inbox {
	in := &Inbox{conversations: map[string]*Conversation{}}
	in.env = &env{
		Config: cfg, limits: Limits{protocol.MaxResumePositions, protocol.MaxAckPositions, protocol.MaxPage}, catchingUp: map[*Conversation]catchUp{},
		forget: func(conv *Conversation) {
			delete(in.conversations, conv.ID())
			in.reconnectForUnnamed()
		},
	}
	return in
}

// Restore adds a conversation with the position that an earlier process stored. hash is nil if it is not known. It
// returns false if seq is too high for any log.
func (in *Inbox) Restore(conversationID string, seq uint64, hash []byte) bool {
	if seq > protocol.MaxSeq {
		return false
	}
	in.conversations[conversationID] = &Conversation{env: in.env, Stream: stream.Resume(conversationID, seq, hash), delivered: seq}
	return true
}

// Position returns the newest seq of a conversation that was handed to the program or is queued for it. It returns false
// if the conversation is not known.
func (in *Inbox) Position(conversationID string) (seq uint64, known bool) {
	conv := in.conversations[conversationID]
	if conv == nil {
		return 0, false
	}
	return conv.Last(), true
}

// Stats returns the present counters.
func (in *Inbox) Stats() Stats { return in.env.stats }

// Close stops the inbox from making queries.
func (in *Inbox) Close() { in.env.closed = true }

// Receive handles a frame of the gateway that is not an answer to a request.
func (in *Inbox) Receive(f *clientv1.ServerFrame, at time.Time) {
	switch m := f.GetMessage().(type) {
	case *clientv1.ServerFrame_Event:
		in.receiveEvent(stream.Arrival{Event: m.Event, Origin: tracing.OriginOf(f.GetTraceparent(), at)})
	case *clientv1.ServerFrame_Hidden:
		in.receiveHidden(m.Hidden)
	case *clientv1.ServerFrame_Receipt:
		in.receiveReceipt(m.Receipt)
	case *clientv1.ServerFrame_Heartbeat:
		in.receiveHeads(m.Heartbeat.GetHeads())
	case *clientv1.ServerFrame_Attached:
		in.receiveConversation(m.Attached.GetConversation(), fromAttached)
	case *clientv1.ServerFrame_Detached:
		in.receiveDetached(m.Detached)
	case *clientv1.ServerFrame_Forked:
		in.receiveForked(m.Forked)
	}
}

// Handed records that every event up to seq, on a branch of the log, was passed to the program.
func (in *Inbox) Handed(conv *Conversation, branch int, seq uint64) {
	if branch == conv.Branch() {
		conv.delivered = seq
		conv.acknowledge()
	}
	in.env.readMore()
}
