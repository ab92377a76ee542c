package client

import (
	"errors"
	"fmt"
	"time"

	"github.com/runnelhq/runnel/pkg/client/internal/request"
	"github.com/runnelhq/runnel/pkg/client/internal/tracing"
	"github.com/runnelhq/runnel/pkg/errcode"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

var (
	// ErrClosed means that the client was closed before the outcome was known.
	ErrClosed = errors.New("client: closed")
	// ErrOutboxFull means that too many commands already wait for their outcome; the new command was not accepted.
	ErrOutboxFull = errors.New("client: outbox is full")
	// ErrTooLarge means that a request is larger than the gateway accepts; the request was not sent.
	ErrTooLarge = request.ErrTooLarge
	// ErrOutcomeUnknown means that the wait ended before the outcome was known. The command may have been sent, so it may
	// still be committed. Unless the error is an *UnconfirmedError, the command stays in the outbox. Call SubmitID with
	// its id to wait for it again.
	ErrOutcomeUnknown = errors.New("client: outcome is not known yet")
	// ErrUndone means that a command was not sent again after a fork, because it refers to an event that was undone.
	ErrUndone = errors.New("client: the event that the command refers to was undone")

	errStarted = errors.New("client: already started")
	errSlow    = errors.New("callbacks are too slow: too many notices are waiting")
	errForked  = errors.New("the server's log was rolled back")
	errAnswer  = errors.New("gateway sent an answer of another type than requested")
)

// RefusedError means that a request was refused for good.
type RefusedError struct {
	// Code is the reason; programs should base decisions on it.
	Code conversationv1.ErrorCode
	// Message is the reason as readable text.
	Message string
	// Field is the path of the invalid field; empty if the refusal concerns no single field.
	Field string
	// RetryAfter is how long to wait before another try; 0 if waiting does not help.
	RetryAfter time.Duration
	// TraceID identifies the trace of the request, as 32 hex digits; empty if there is none.
	TraceID string
}

func refused(e *conversationv1.Error) *RefusedError {
	return &RefusedError{
		Code: e.GetCode(), Message: e.GetMessage(), Field: e.GetField(),
		RetryAfter: retryAfter(e),
	}
}

// refusalOf returns the error of a refused request.
func refusalOf(answer *clientv1.ServerFrame, refusal *conversationv1.Error) error {
	err := refused(refusal)
	err.TraceID = tracing.ID(tracing.Parse(answer.GetTraceparent()))
	return err
}

// retryAfter returns how long to wait before another try; 0 if refusal is nil or states no time.
func retryAfter(refusal *conversationv1.Error) time.Duration {
	return time.Duration(refusal.GetRetryAfterMs()) * time.Millisecond
}

func (e *RefusedError) Error() string {
	if e.Field == "" {
		return fmt.Sprintf("refused: %s: %s", errcode.Name(e.Code), e.Message)
	}
	return fmt.Sprintf("refused: %s: %s %s", errcode.Name(e.Code), e.Field, e.Message)
}

// UnconfirmedError means that gateways kept rejecting a command that was already sent over an earlier connection. For
// example, an older gateway does not know the command's kind. The earlier copy may have been committed. The error matches
// ErrOutcomeUnknown; the command is no longer in the outbox.
type UnconfirmedError struct {
	// Cause is the last refusal: a *RefusedError, or ErrTooLarge.
	Cause error
}

func (e *UnconfirmedError) Error() string {
	return "client: the command was sent, and whether it was committed is not known: sending it again failed: " + e.Cause.Error()
}

// Is makes the error match ErrOutcomeUnknown. The error does not match its cause, because the cause is not the outcome of
// the command.
func (e *UnconfirmedError) Is(target error) bool { return target == ErrOutcomeUnknown }

// ClosedError means that the gateway closed the connection with a code that asks clients to stay away. A new client would
// get the same code until the cause is removed.
type ClosedError struct {
	Code   errcode.CloseCode
	Reason string
	// Refusal is the gateway's answer to connect before it closed the connection; nil if there was none.
	Refusal *RefusedError
}

func (e *ClosedError) Error() string {
	text := fmt.Sprintf("client: closed by the gateway: %s (%d)", e.Code, int(e.Code))
	switch {
	case e.Refusal != nil:
		return text + ": " + e.Refusal.Error()
	case e.Reason != "":
		return text + ": " + e.Reason
	}
	return text
}

func (e *ClosedError) Unwrap() error {
	if e.Refusal == nil {
		return nil
	}
	return e.Refusal
}
