package client

import (
	"context"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/runnelhq/runnel/pkg/client/internal/inbox"
	"github.com/runnelhq/runnel/pkg/client/internal/link"
	"github.com/runnelhq/runnel/pkg/client/internal/request"
	"github.com/runnelhq/runnel/pkg/client/internal/stream"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/protocol"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
)

// session is the client's state across all its connections: connection state, requests, outbox and inbox, all under one
// lock. It is the link.Handler of every connection: it passes each frame to the part that handles it.
type session struct {
	cfg       *Config
	callbacks *callbacks

	mu    sync.Mutex
	state State
	// err is why the session is closed; nil when the program closed it.
	err error
	// connected is closed while the state is Connected.
	connected chan struct{}
	// userID is empty before the first connection.
	userID string
	// link is the connection; nil without one.
	link *link.Link
	// refreshing means that a new token is being fetched for the connection.
	refreshing bool
	connects   uint64

	// limits are the limits of the current or latest connection. Before the first connection they are the limits of the
	// protocol.
	limits   *clientv1.Limits
	requests *request.Queue
	outbox   *outbox
	inbox    *inbox.Inbox
}

func newSession(cfg *Config) *session {
	var tracer trace.Tracer
	if cfg.TracerProvider != nil {
		tracer = cfg.TracerProvider.Tracer(scopeName)
	}
	s := &session{cfg: cfg, connected: make(chan struct{}), limits: protocol.NewLimits()}
	s.callbacks = newCallbacks(cfg, tracer, s.handed)
	s.requests = request.NewQueue(request.Config{
		Codec: cfg.Codec, Timeout: cfg.RequestTimeout, Backoff: cfg.Backoff.wait, Refused: refusalOf, Wake: s.wakeLocked,
		Check: func(f *clientv1.ClientFrame) error { return checkLimits(s.limits, f) },
	})
	s.outbox = newOutbox(cfg.MaxOutbox, s.requests, tracer, s.callbacks.accepted)
	s.inbox = inbox.New(inbox.Config{
		Start: cfg.Start, Checker: stream.NewChecker(cfg.Codec, cfg.SkipVerify), AckDelay: cfg.AckDelay, Backoff: cfg.Backoff.wait,
		Log: cfg.Log, Program: s.callbacks, Server: server{s.requests, func() *clientv1.Limits { return s.limits }}, Commands: &s.outbox.committed,
		Forked: s.forkedLocked, Reconnect: s.reconnectLocked, Wake: s.wakeLocked,
	})
	return s
}

// restore loads the positions of an earlier process.
func (s *session) restore(positions map[string]Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, position := range positions {
		if !s.inbox.Restore(id, position.Seq, position.Hash) {
			s.cfg.Log.Warn("ignored a saved position that is out of range", "conversation_id", id, "seq", position.Seq)
		}
	}
}

// close ends every waiting request and command with an error. It returns false if the session was already closed. err is
// nil if the program closed the session.
func (s *session) close(err error) (first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == Closed {
		return false
	}
	s.becomeLocked(Closed)
	s.err = err
	s.inbox.Close()
	if dropped := s.outbox.close(s.reasonLocked()); dropped > 0 {
		s.cfg.Log.Warn("the client ended while commands had no outcome; call Flush before Close to wait for them", "commands", dropped)
	}
	s.requests.FailAll(s.reasonLocked())
	return true
}

// reason returns the error of requests that end because the session ends.
func (s *session) reason() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reasonLocked()
}

func (s *session) reasonLocked() error {
	if s.err != nil {
		return s.err
	}
	return ErrClosed
}

func (s *session) become(next State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.becomeLocked(next)
}

// becomeLocked changes the state. It is the only function that does so.
func (s *session) becomeLocked(next State) {
	if !s.state.leadsTo(next) {
		s.cfg.Log.Error("invalid state transition of the client", "from", s.state.String(), "to", next.String())
	}
	if s.state == Connected {
		s.connected = make(chan struct{})
	}
	s.state = next
	if next == Connected {
		close(s.connected)
	}
	// The state Closed is reported only after all other work is done; see Client.Start.
	if next != Closed {
		s.callbacks.state(next)
	}
}

// ConnectMessage and the following methods implement link.Handler.
func (s *session) ConnectMessage(token string) *clientv1.Connect {
	s.mu.Lock()
	defer s.mu.Unlock()
	start, positions := s.inbox.Connecting()
	return &clientv1.Connect{
		Token: token, DeviceId: s.cfg.DeviceID, Start: start, Resume: positions,
		Accepted: s.cfg.Accepted, NoReceipts: s.cfg.OnReceipt == nil, Client: s.cfg.Software,
		BodyBytes: s.cfg.Codec != frame.Proto && !s.cfg.SkipVerify,
	}
}

// Connected makes an authenticated connection the current one.
func (s *session) Connected(l *link.Link, f *clientv1.ServerFrame) error {
	if err := inbox.CheckSeqs(f); err != nil {
		return err
	}
	connected := f.GetConnected()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.link, s.refreshing = l, false
	s.userID = connected.GetUserId()
	s.connects++
	s.becomeLocked(Connected)
	s.limits = limitsOf(connected)
	s.inbox.Connected(connected, inbox.Limits{
		ResumePositions: int(s.limits.GetMaxResumePositions()), AckPositions: int(s.limits.GetMaxAckPositions()), Page: s.limits.GetMaxPage(),
	})
	s.requests.Connect(request.Limits{
		FrameBytes: int(s.limits.GetMaxFrameBytes()), OpenRequests: int(s.limits.GetMaxOpenRequests()),
	}, link.ConnectID)
	s.cfg.Log.Info("connected to a gateway", "connection_id", connected.GetConnectionId(), "user_id", s.userID)
	return nil
}

// Disconnected removes an ended connection from the session.
func (s *session) Disconnected() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.link = nil
	s.inbox.Disconnected()
	s.requests.Disconnect()
}

// Receive passes a frame to the part that handles it.
func (s *session) Receive(f *clientv1.ServerFrame, at time.Time) error {
	if err := inbox.CheckSeqs(f); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.GetId() != 0 {
		s.requests.Answer(f)
		return nil
	}
	switch m := f.GetMessage().(type) {
	case *clientv1.ServerFrame_Accepted:
		s.requests.Accepted(m.Accepted.GetRequestId())
	case *clientv1.ServerFrame_TokenExpiring:
		s.refreshLocked()
	default:
		s.inbox.Receive(f, at)
	}
	if s.callbacks.overflows() {
		return errSlow
	}
	return nil
}

// Append appends acknowledgements and requests.
func (s *session) Append(l *link.Link, message []byte, frames int) (_ []byte, due time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	frames += int(s.limits.GetMaxFrames()) - protocol.MaxFrames // the link starts counting with the limit of the protocol
	closing := l.Closing()                                      // read under the lock: a Fail that was called under this lock takes effect here
	if due = s.inbox.AckDue(); !due.IsZero() && frames > 0 && (closing || !time.Now().Before(due)) {
		ack := &clientv1.ClientFrame{Request: &clientv1.ClientFrame_Ack{Ack: s.inbox.TakeAck()}}
		message = frame.AppendClient(message, s.cfg.Codec, ack)
		frames--
	}
	if !closing {
		message = s.requests.Append(message, frames)
	}
	return message, link.Earlier(s.inbox.AckDue(), s.requests.Due())
}

// refreshLocked fetches a new token for the connection. If it fails, the connection ends when its token expires, and the
// next connection starts with a new token.
func (s *session) refreshLocked() {
	if s.refreshing {
		return
	}
	s.refreshing = true
	l := s.link
	l.Go(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, s.cfg.ConnectTimeout)
		defer cancel()
		token, err := s.cfg.Token(ctx)
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case err != nil:
			s.refreshing = false
			s.cfg.Log.Warn("could not get a token to refresh the connection", "error", err)
		case s.link == l:
			s.sendTokenLocked(token)
		}
	})
}

func (s *session) sendTokenLocked(token string) {
	s.requests.Ask(&request.Request{
		Frame:         &clientv1.ClientFrame{Request: &clientv1.ClientFrame_Refresh{Refresh: &clientv1.Refresh{Token: token}}},
		OneConnection: true,
		Done: func(_ *clientv1.ServerFrame, err error) {
			s.refreshing = false
			if err != nil {
				s.cfg.Log.Warn("could not refresh the connection's token", "error", err)
			}
		},
	})
}

// handed records that every event up to seq was passed to the program.
func (s *session) handed(conv *inbox.Conversation, branch int, seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inbox.Handed(conv, branch, seq)
}

// forkedLocked reports to the program that the log of a conversation went back, and sends undone commands again. from is
// the conversation's position before the fork.
func (s *session) forkedLocked(conv *inbox.Conversation, from uint64, hash []byte) {
	fork := Fork{ConversationID: conv.ID(), To: conv.Last()}
	newest, tickets := s.outbox.resubmit(conv.ID(), fork.To, s.userID)
	fork.From, fork.Commands = max(from, newest), tickets
	s.cfg.Log.Warn("the server's log of a conversation was rolled back", "conversation_id", conv.ID(), "from", fork.From, "to", fork.To)
	s.callbacks.fork(conv, conv.Branch(), fork, hash)
}

// wakeLocked wakes the writer if there is something to send.
func (s *session) wakeLocked() {
	if s.link != nil {
		s.link.Wake()
	}
}

// reconnectLocked ends a connection on which the gateway pushes conversations from positions that are no longer the
// client's.
func (s *session) reconnectLocked() { s.link.Fail(errForked) }
