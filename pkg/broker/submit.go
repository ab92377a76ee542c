package broker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/bus"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
)

// SubmitterConfig configures a Submitter.
type SubmitterConfig struct {
	// MaxPending limits the commands in flight. Defaults to 65536.
	MaxPending int
	// PublishTimeout is how long to wait for the broker's acknowledgement before the same bytes are published again.
	// Defaults to 2 s.
	PublishTimeout time.Duration
	// AcceptTimeout is how long a command may stay unacknowledged before it fails as unavailable. Defaults to 8 s.
	AcceptTimeout time.Duration
	// OutcomeTimeout is how long to wait for the outcome of an accepted command. Defaults to 60 s: while the store is
	// unavailable, commands stay accepted, and a client that repeats a command joins the waiting call.
	OutcomeTimeout time.Duration
	// AskAgain is how long after acceptance a repeated command is published again. Results are published at most once, so
	// the first result may be lost. The time doubles with each repeat, so that an outage of the store does not fill the
	// stream with copies. Defaults to 3 s.
	AskAgain time.Duration
}

func (c SubmitterConfig) withDefaults() SubmitterConfig {
	if c.MaxPending == 0 {
		c.MaxPending = 65536
	}
	if c.PublishTimeout == 0 {
		c.PublishTimeout = 2 * time.Second
	}
	if c.AcceptTimeout == 0 {
		c.AcceptTimeout = 8 * time.Second
	}
	if c.OutcomeTimeout == 0 {
		c.OutcomeTimeout = 60 * time.Second
	}
	if c.AskAgain == 0 {
		c.AskAgain = 3 * time.Second
	}
	return c
}

// Submission is one command to be submitted. Its ids must be valid.
type Submission struct {
	// Command is the command to publish. The submitter sets its inbox, admitted_ms and not_after_ms; the caller sets the rest, and
	// must not change it afterwards.
	Command *brokerv1.Command
	// Header is added to the message's header: trace context. May be nil.
	Header nats.Header
	// Accepted is called when the broker holds the command. May be nil.
	Accepted func()
	// Done is called exactly once, unless the submitter is closed before. An outcome with the error UNAVAILABLE means
	// that the command's outcome is unknown. Accepted and Done run on the submitter's goroutines and must not block.
	Done func(*conversationv1.Outcome)
}

// Submitter puts commands into their streams and returns their outcomes. For one sender and one conversation, at most one publish
// is in flight, so the commands enter the stream in the order of Submit.
//
//	Submit ─▶ queued ─▶ published ─PubAck─▶ accepted ─result─▶ done
//	                     │   ▲ time-out: the same bytes and message id again
//	                     └───┘ duplicate: again under a new message id, so that the owner answers it
//
// An accepted command whose result seems to be lost is published again in the same way when a client repeats the command.
//
// All copies of a call consist of the same bytes, including attempt, admission time, not_after and salt. No copy is published after
// not_after. The stream may still store the last copy later than that; then the owner does not carry it out.
//
// If a client repeats a command in flight, it joins the command's call. If the repeat has a higher attempt, the client has
// received a refusal of the attempt in flight: that call is superseded. Its waiters receive an unknown outcome, and the new call
// follows it into the stream.
type Submitter struct {
	cfg        SubmitterConfig
	nc         *nats.Conn
	partitions int
	inbox      string
	replies    string // prefix of the subjects for PubAcks
	log        *slog.Logger
	subs       []bus.Subscription
	stop       chan struct{}
	done       chan struct{}

	wake      chan struct{} // signalled when outgoing is not empty
	published chan struct{} // closed when the publisher has ended

	mu       sync.Mutex
	next     uint64
	calls    map[callKey]*call    // the newest attempt of each command
	acks     map[uint64]*call     // calls that wait for a PubAck, by the token in its reply subject
	queues   map[queueKey][]*call // the first call of each queue is in flight; the others wait for it
	outgoing []*call              // calls to publish, in this order; each call is in it at most once
}

type queueKey struct {
	conversation ids.Conversation
	sender       ids.User
}

type callKey struct {
	queueKey
	command ids.Command
}

type call struct {
	key        callKey
	command    *brokerv1.Command
	message    *nats.Msg
	waiters    []Submission
	token      uint64 // token of the publish in flight; 0 if there is none
	accepted   bool
	unsent     bool // the call is in outgoing
	republish  bool // the call was already republished because of a duplicate
	superseded bool // superseded by a call with a higher attempt: it has no waiters, and is no longer in calls
	tryAt      time.Time
	deadline   time.Time
	notAfter   time.Time     // no copy is published after this time
	askAt      time.Time     // set when accepted: after this time, a repeated command means that the client did not receive the result
	patience   time.Duration // time until the next askAt
}

// ErrBusy means that too many commands are in flight. The command was not submitted, and the caller may try again later.
var ErrBusy = errors.New("too many commands are under way")

// ErrConflict means that a command with the same id but another body is in flight, in the same attempt or a later one.
var ErrConflict = errors.New("the command id is in use with another body")

// CopyLifetime is how long after the admission of a command copies of it may enter the stream.
const CopyLifetime = 2 * time.Minute

const (
	sweepInterval = 100 * time.Millisecond
	headerMsgID   = "Nats-Msg-Id"
	// maxWaiters limits the waiters of one command: clients that repeat it after losing a connection.
	maxWaiters         = 8
	headerExpectStream = "Nats-Expected-Stream"
)

// NewSubmitter makes a Submitter that publishes commands over NATS and receives outcomes on result.<inbox> of the bus.
// The inbox must be unique and valid in a subject. The caller closes the Submitter.
func NewSubmitter(nc *nats.Conn, outcomes bus.Bus, partitions int, inbox string, cfg SubmitterConfig, log *slog.Logger) (*Submitter, error) {
	s := &Submitter{
		cfg: cfg.withDefaults(), nc: nc, partitions: partitions, inbox: inbox, log: log,
		replies: nc.NewInbox() + ".",
		stop:    make(chan struct{}), done: make(chan struct{}),
		wake: make(chan struct{}, 1), published: make(chan struct{}),
		calls: map[callKey]*call{}, acks: map[uint64]*call{}, queues: map[queueKey][]*call{},
	}
	if err := s.subscribe(outcomes); err != nil {
		s.unsubscribe()
		return nil, err
	}
	go s.sweep()
	go s.publish()
	return s, nil
}

func (s *Submitter) subscribe(outcomes bus.Bus) error {
	acks, err := s.nc.Subscribe(s.replies+"*", s.onPubAck)
	if err != nil {
		return fmt.Errorf("subscribe to the acknowledgements of the broker: %w", err)
	}
	s.subs = append(s.subs, acks)
	// MaxPending limits the number of acknowledgements; the default limit of the NATS client would drop some.
	if err := acks.SetPendingLimits(-1, -1); err != nil {
		return fmt.Errorf("lift the limit of acknowledgements: %w", err)
	}
	results, err := outcomes.Subscribe(ResultSubject(s.inbox), s.onResults)
	if err != nil {
		return err
	}
	s.subs = append(s.subs, results)
	return nil
}

// Close stops the submitter. Commands in flight get no answer. If NATS accepts no data, Close waits for the connection's
// write deadline.
func (s *Submitter) Close() {
	s.unsubscribe()
	close(s.stop)
	<-s.done
	<-s.published
}

func (s *Submitter) unsubscribe() {
	for _, sub := range s.subs {
		_ = sub.Unsubscribe() // fails only if the connection is closed, which also ends the subscription
	}
}

// Pending is the number of commands in flight.
func (s *Submitter) Pending() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.calls)
}

// Submit submits a command, or joins the call of the same command if it is in flight. It does not wait for the broker.
// The error is ErrBusy or ErrConflict; in both cases the command was not submitted.
func (s *Submitter) Submit(sub Submission) error {
	key := callKey{queueKey{ids.Conversation(sub.Command.GetConversationId()), ids.User(sub.Command.GetSender())}, ids.Command(sub.Command.GetCommandId())}
	now := time.Now()

	s.mu.Lock()
	underWay := s.calls[key]
	if underWay != nil && sub.Command.GetAttempt() <= underWay.command.GetAttempt() {
		return s.joinAndUnlock(underWay, sub, now)
	}
	if underWay == nil && len(s.calls) >= s.cfg.MaxPending {
		s.mu.Unlock()
		return ErrBusy
	}
	c, err := s.newCall(key, sub, now)
	if err != nil {
		s.mu.Unlock()
		return err
	}
	if underWay != nil {
		s.supersedeLocked(underWay, now)
	}
	s.calls[key] = c
	s.queues[key.queueKey] = append(s.queues[key.queueKey], c)
	if len(s.queues[key.queueKey]) == 1 {
		s.publishLocked(c, now)
	}
	s.mu.Unlock()
	if underWay != nil {
		underWay.finish(underWay.unknown())
	}
	return nil
}

// newCall makes the call of a command, with the message that all its copies use.
func (s *Submitter) newCall(key callKey, sub Submission, now time.Time) (*call, error) {
	command, notAfter := sub.Command, now.Add(CopyLifetime)
	command.Inbox = s.inbox
	command.AdmittedMs, command.NotAfterMs = now.UnixMilli(), notAfter.UnixMilli()
	payload, err := command.MarshalVT()
	if err != nil {
		return nil, fmt.Errorf("encode command: %w", err)
	}
	partition := conversation.Partition(ids.Conversation(command.GetConversationId()), s.partitions)
	header := nats.Header{headerMsgID: {messageID(key, command.GetAttempt())}, headerExpectStream: {StreamName(partition)}}
	maps.Copy(header, sub.Header)
	subject := CommandSubject(partition)
	if ids.User(command.GetSender()) == conversation.ServerUser {
		subject = ServerSubject(partition)
	}
	return &call{
		key: key, command: command, waiters: []Submission{sub}, deadline: now.Add(min(s.cfg.AcceptTimeout, CopyLifetime)), notAfter: notAfter,
		message: &nats.Msg{Subject: subject, Header: header, Data: payload},
	}, nil
}

// joinAndUnlock adds a waiter to the call of a command in flight. It is used when a client repeats a command after a lost
// connection or a timeout. The caller holds mu; joinAndUnlock releases it.
func (s *Submitter) joinAndUnlock(c *call, sub Submission, now time.Time) error {
	if !conversation.SameBody(c.command.GetBody(), sub.Command.GetBody()) {
		s.mu.Unlock()
		return ErrConflict
	}
	// The clients of older waiters have usually disconnected.
	var displaced *call
	if len(c.waiters) >= maxWaiters {
		displaced = &call{key: c.key, waiters: c.waiters[:1:1]}
		c.waiters = c.waiters[1:]
	}
	c.waiters = append(c.waiters, sub)
	accepted := c.accepted
	if accepted && c.token == 0 && now.After(c.askAt) {
		c.patience *= 2
		c.askAt = now.Add(c.patience)
		s.renewIDLocked(c)
		s.publishLocked(c, now)
	}
	s.mu.Unlock()
	if displaced != nil {
		displaced.finish(displaced.unknown())
	}
	if accepted && sub.Accepted != nil {
		sub.Accepted()
	}
	return nil
}

// supersedeLocked makes room for a call of the same command with a higher attempt. The old call is not published again. If its
// publish is in flight, it keeps its place in the queue until the broker has answered or the publish has timed out, so that the
// new call follows it into the stream.
func (s *Submitter) supersedeLocked(c *call, now time.Time) {
	c.superseded = true
	delete(s.calls, c.key)
	if c.token == 0 || c.accepted {
		s.retireLocked(c, now)
	}
}

// Do submits a command and waits for its outcome. If ctx ends first, the outcome is unknown.
func (s *Submitter) Do(ctx context.Context, command *brokerv1.Command, header nats.Header) (*conversationv1.Outcome, error) {
	outcome := make(chan *conversationv1.Outcome, 1)
	err := s.Submit(Submission{Command: command, Header: header, Done: func(o *conversationv1.Outcome) { outcome <- o }})
	if err != nil {
		return nil, err
	}
	select {
	case o := <-outcome:
		return o, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the outcome of command %s: %w", command.GetCommandId(), ctx.Err())
	}
}

// messageID returns the id by which JetStream detects duplicates. It is a hash over everything that identifies an attempt
// of the command. Therefore no user can suppress another user's command, and no client input gets into a header.
func messageID(key callKey, attempt uint32) string {
	var stack [192]byte // large enough for a conversation id, a user id and a UUID
	buf := append(append(stack[:0], key.conversation...), 0)
	buf = append(append(buf, key.sender...), 0)
	buf = append(append(buf, key.command...), 0)
	sum := sha256.Sum256(strconv.AppendUint(buf, uint64(attempt), 10))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// renewIDLocked gives the call's message a new id, so that the broker stores it although it already has a copy. The
// command still commits only once, because of the store's unique key.
func (s *Submitter) renewIDLocked(c *call) {
	c.message.Header = maps.Clone(c.message.Header) // copied, because the publisher may be reading the old header
	c.message.Header.Set(headerMsgID, messageID(c.key, c.command.GetAttempt())+"."+strconv.FormatUint(rand.Uint64(), 36))
}

func (s *Submitter) onPubAck(msg *nats.Msg) {
	token, err := strconv.ParseUint(msg.Subject[len(s.replies):], 10, 64)
	if err != nil {
		return
	}
	now := time.Now()
	s.mu.Lock()
	c := s.acks[token]
	if c == nil {
		s.mu.Unlock()
		return
	}
	if c.superseded {
		s.retireLocked(c, now)
		s.mu.Unlock()
		return
	}
	// Any other answer than a stored or duplicate message is a temporary error (no leader, full, in process), and decides
	// nothing.
	if !bytes.Contains(msg.Data, []byte(`"seq":`)) || bytes.Contains(msg.Data, []byte(`"error":`)) {
		c.tryAt = now.Add(50*time.Millisecond + rand.N(100*time.Millisecond))
		s.mu.Unlock()
		s.log.Debug("the broker did not accept a command", "subject", msg.Header.Get("Status"), "answer", string(msg.Data))
		return
	}
	if !c.republish && !now.After(c.notAfter) && bytes.Contains(msg.Data, []byte(`"duplicate"`)) {
		// The stream already contains the message, perhaps from before this process started. The answer to that copy does
		// not reach this process. Publishing the message under a new id makes the owner answer again.
		c.republish = true
		s.renewIDLocked(c)
		s.publishLocked(c, now)
		s.mu.Unlock()
		return
	}
	delete(s.acks, token)
	c.token = 0
	if c.accepted {
		s.mu.Unlock()
		return
	}
	c.accepted, c.deadline = true, now.Add(s.cfg.OutcomeTimeout)
	c.patience, c.askAt = s.cfg.AskAgain, now.Add(s.cfg.AskAgain)
	waiters := c.waiters
	s.leaveQueueLocked(c, now)
	s.mu.Unlock()
	for _, w := range waiters {
		if w.Accepted != nil {
			w.Accepted()
		}
	}
}

func (s *Submitter) onResults(msg *nats.Msg) {
	var results brokerv1.Results
	if err := results.UnmarshalVT(msg.Data); err != nil {
		s.log.Error("a result message cannot be decoded", "error", err)
		return
	}
	now := time.Now()
	for _, result := range results.GetResults() {
		outcome := result.GetOutcome()
		key := callKey{queueKey{ids.Conversation(outcome.GetConversationId()), ids.User(result.GetSender())}, ids.Command(outcome.GetCommandId())}
		s.mu.Lock()
		c := s.calls[key]
		if c != nil && !bytes.Equal(c.command.GetSalt(), result.GetSalt()) {
			c = nil // the answer belongs to another copy of the command, perhaps with another body
		}
		if c != nil {
			s.forgetLocked(c, now)
		}
		s.mu.Unlock()
		if c != nil {
			c.finish(outcome)
		}
	}
}

// unknown is the outcome for waiters that did not get an answer in time.
func (c *call) unknown() *conversationv1.Outcome {
	return &conversationv1.Outcome{
		ConversationId: string(c.key.conversation), CommandId: string(c.key.command),
		Error: &conversationv1.Error{
			Code:         conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE,
			Message:      "it is not known yet whether this was done; send it again with the same command id",
			RetryAfterMs: 1000,
		},
	}
}

func (c *call) finish(outcome *conversationv1.Outcome) {
	for _, w := range c.waiters {
		w.Done(outcome)
	}
}

// forgetLocked removes the call from all maps.
func (s *Submitter) forgetLocked(c *call, now time.Time) {
	delete(s.calls, c.key)
	s.retireLocked(c, now)
}

// retireLocked ends the publishing of a call and releases its place in the queue.
func (s *Submitter) retireLocked(c *call, now time.Time) {
	if c.token != 0 {
		delete(s.acks, c.token)
		c.token = 0
	}
	if !c.accepted {
		c.accepted = true
		s.leaveQueueLocked(c, now)
	}
}

// leaveQueueLocked removes the call from its queue, and starts the next command of the same sender and conversation.
func (s *Submitter) leaveQueueLocked(c *call, now time.Time) {
	queue := s.queues[c.key.queueKey]
	for i := range queue {
		if queue[i] != c {
			continue
		}
		queue = append(queue[:i:i], queue[i+1:]...)
		if len(queue) == 0 {
			delete(s.queues, c.key.queueKey)
			return
		}
		s.queues[c.key.queueKey] = queue
		if i == 0 {
			s.publishLocked(queue[0], now)
		}
		return
	}
}

// sweep publishes unanswered commands again, and ends calls whose deadline has passed.
func (s *Submitter) sweep() {
	defer close(s.done)
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-s.stop:
			return
		case now := <-ticker.C:
			for _, c := range s.sweepOnce(now) {
				c.finish(c.unknown())
			}
		}
	}
}

func (s *Submitter) sweepOnce(now time.Time) (overdue []*call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.acks {
		switch {
		case !now.After(c.tryAt):
		case c.superseded:
			s.retireLocked(c, now)
		case now.Before(c.deadline):
			s.publishLocked(c, now)
		}
	}
	for _, c := range s.calls {
		switch {
		case !now.After(c.deadline):
		case c.accepted:
			s.forgetLocked(c, now)
			overdue = append(overdue, c)
		default:
			overdue = s.failQueueLocked(c, now, overdue)
		}
	}
	return overdue
}

// failQueueLocked ends a call that was not accepted in time, and all calls queued behind it: sending those would break
// the sender's order.
func (s *Submitter) failQueueLocked(c *call, now time.Time, overdue []*call) []*call {
	queue := s.queues[c.key.queueKey]
	delete(s.queues, c.key.queueKey)
	for _, queued := range queue {
		queued.accepted = true // so that the call counts as out of the queue
		if queued.superseded { // not in calls, and without waiters
			s.retireLocked(queued, now)
			continue
		}
		s.forgetLocked(queued, now)
		overdue = append(overdue, queued)
	}
	return overdue
}
