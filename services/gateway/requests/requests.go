// Package requests carries out the requests of users: its input is a caller and a request, its output an answer or a typed error.
// It knows users, not connections, so that every endpoint can use it. It never decides order or permission, and has no state.
//
// A request is one file and one line in the table kinds; see README.md. Submits are separate (submit.go), because their outcome
// arrives later.
package requests

import (
	"context"
	"errors"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/gateway/flight"
	"github.com/runnelhq/runnel/services/gateway/metrics"
)

// History is the part of the history service that requests call.
type History interface {
	Read(ctx context.Context, request *historyv1.ReadRequest, options ...grpc.CallOption) (*historyv1.ReadResponse, error)
	ReadMessages(ctx context.Context, request *historyv1.ReadMessagesRequest, options ...grpc.CallOption) (*historyv1.ReadMessagesResponse, error)
	ListConversations(ctx context.Context, request *historyv1.ListConversationsRequest, options ...grpc.CallOption) (*historyv1.ListConversationsResponse, error)
	ListMembers(ctx context.Context, request *historyv1.ListMembersRequest, options ...grpc.CallOption) (*historyv1.ListMembersResponse, error)
	CountMemberships(ctx context.Context, request *historyv1.CountMembershipsRequest, options ...grpc.CallOption) (*historyv1.CountMembershipsResponse, error)
}

// Config contains the dependencies of a Handler. A request needs only the fields that it uses; a gateway sets all.
type Config struct {
	History History
	// Submit passes a command to the broker.
	Submit func(broker.Submission) error
	// Level is the installation's protocol level.
	Level      func() conversation.Level
	Partitions int
	Metrics    *metrics.Metrics
	Tracer     *flight.Tracer
	// Adding limits what users may do to others.
	Adding Adding
}

// Handler carries requests out. It may be used by several goroutines.
type Handler struct {
	cfg          Config
	messageKinds []conversationv1.EventKind
	counts       counts
}

// New makes a handler.
func New(cfg Config) *Handler { return &Handler{cfg: cfg, messageKinds: conversation.MessageKinds()} }

// Caller is the user on whose behalf a request is carried out.
type Caller struct {
	User ids.User
	// Commands limits the user's commands. Traces limits the traces of the user's clients that the gateway continues; nil
	// without tracing.
	Commands, Traces *rate.Limiter
	// Adds limits the members that the user adds. Reads limits the user's requests that read the history. nil means no
	// limit.
	Adds, Reads *rate.Limiter
}

// Idle reports whether the caller's allowances are full. Then the caller can be removed: a new Caller of the same user
// has the same allowances.
func (c *Caller) Idle() bool {
	for _, limiter := range []*rate.Limiter{c.Commands, c.Adds, c.Reads} {
		if limiter != nil && limiter.Tokens() < float64(limiter.Burst()) {
			return false
		}
	}
	return true
}

// Answer is the answer of a request, in any encoding.
type Answer interface {
	// Append appends the frame that answers the request with this id.
	Append(dst []byte, codec frame.Codec, id uint64) []byte
}

// Bounds are approximate size limits of an answer.
type Bounds struct {
	// Bytes bounds answers without events. EventBytes bounds answers with events: a client may want the body of each
	// event in two forms.
	Bytes, EventBytes int
}

// Request is a request that was checked and can be carried out.
type Request struct {
	handler *Handler
	do      func(ctx context.Context, caller *Caller, bounds Bounds) (Answer, error)
}

// kinds lists the requests. The session handles connect, refresh, ack and pong itself; submit is in submit.go.
var kinds = []kind{
	kindOf((*clientv1.ClientFrame).GetRead, checkRead, (*Handler).read),
	kindOf((*clientv1.ClientFrame).GetReadMessages, checkReadMessages, (*Handler).readMessages),
	kindOf((*clientv1.ClientFrame).GetListConversations, checkListConversations, (*Handler).listConversations),
	kindOf((*clientv1.ClientFrame).GetListMembers, checkListMembers, (*Handler).listMembers),
}

// kind checks the request in a frame and returns it. If the frame contains no request of this kind, it returns nil and no
// error.
type kind func(h *Handler, f *clientv1.ClientFrame) (*Request, *conversationv1.Error)

func kindOf[R any](
	get func(*clientv1.ClientFrame) *R,
	check func(*R) *conversationv1.Error,
	do func(h *Handler, ctx context.Context, caller *Caller, request *R, bounds Bounds) (Answer, error),
) kind {
	return func(h *Handler, f *clientv1.ClientFrame) (*Request, *conversationv1.Error) {
		request := get(f)
		if request == nil {
			return nil, nil //nolint:nilnil // nil, nil means that the frame contains a request of another kind
		}
		if refused := check(request); refused != nil {
			return nil, refused
		}
		return &Request{h, func(ctx context.Context, caller *Caller, bounds Bounds) (Answer, error) {
			return do(h, ctx, caller, request, bounds)
		}}, nil
	}
}

// Parse returns the request in a frame, or why it is refused. Both are nil if the frame contains no request of the table.
func (h *Handler) Parse(f *clientv1.ClientFrame) (*Request, *conversationv1.Error) {
	for _, parse := range kinds {
		if request, refused := parse(h, f); request != nil || refused != nil {
			return request, refused
		}
	}
	return nil, nil //nolint:nilnil // as documented
}

// Do carries the request out. Pass its error to Refusal.
func (r *Request) Do(ctx context.Context, caller *Caller, bounds Bounds) (Answer, error) {
	if wait := reserve(caller.Reads, 1); wait > 0 {
		r.handler.cfg.Metrics.Limits[metrics.LimitReadRate].Inc()
		return nil, &RefusedError{LimitedFor("too many requests of this user", wait)}
	}
	return r.do(ctx, caller, bounds)
}

// RefusedError is the error of a request that is refused after it was checked. Refusal returns its content unchanged.
type RefusedError struct{ Refused *conversationv1.Error }

// Error implements error.
func (e *RefusedError) Error() string { return e.Refused.GetField() + ": " + e.Refused.GetMessage() }

// Refusal translates an error of Do for the client: a *RefusedError, or the status of a call of the history service. unexpected
// is true if the cause should be reported to an operator.
func Refusal(err error) (refused *conversationv1.Error, unexpected bool) {
	if typed, is := errors.AsType[*RefusedError](err); is {
		return typed.Refused, false
	}
	switch status.Code(err) {
	case codes.NotFound:
		return refusal(conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND, "conversation_id", "no such conversation, or you are not a member of it"), false
	case codes.InvalidArgument:
		return invalid("", "the request breaks a rule of the history service"), false
	case codes.Internal:
		return refusal(conversationv1.ErrorCode_ERROR_CODE_INTERNAL, "", "the history service has a defect; try again later"), true
	default:
		return refusal(conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE, "", "the history service is unavailable; try again"), true
	}
}

// limitedRetryMs is the time after which a client may retry a request that exceeded a rate.
const limitedRetryMs = 1000

// Limited returns the refusal of a request that exceeds a rate limit or a maximum number.
func Limited(message string) *conversationv1.Error {
	return LimitedFor(message, limitedRetryMs*time.Millisecond)
}

// LimitedFor is Limited with the time after which the client may retry.
func LimitedFor(message string, wait time.Duration) *conversationv1.Error {
	return &conversationv1.Error{
		Code: conversationv1.ErrorCode_ERROR_CODE_RATE_LIMITED, Message: message, RetryAfterMs: uint32(max(wait.Milliseconds(), limitedRetryMs)),
	}
}

func invalid(field, message string) *conversationv1.Error {
	return refusal(conversationv1.ErrorCode_ERROR_CODE_INVALID, field, message)
}

func refusal(code conversationv1.ErrorCode, field, message string) *conversationv1.Error {
	return &conversationv1.Error{Code: code, Field: field, Message: message}
}

// answer is an Answer that consists of one server frame.
type answer struct{ frame *clientv1.ServerFrame }

// Append implements Answer.
func (a answer) Append(dst []byte, codec frame.Codec, id uint64) []byte {
	a.frame.Id = id
	return frame.AppendServer(dst, codec, a.frame)
}
