package requests

import (
	"context"
	"errors"
	"time"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/commands"
	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/gateway/metrics"
)

// Waiter receives the result of a submit. It must not block.
type Waiter interface {
	// Accepted reports that the broker holds the command.
	Accepted(id uint64)
	// Outcome is called once. traceparent names the trace of the command; empty when it is not sampled.
	Outcome(id uint64, conversationID ids.Conversation, outcome *conversationv1.Outcome, traceparent string)
}

// Submit passes a command to the broker; waiter receives its outcome. If Submit refuses the command, only this copy was
// not taken; earlier copies of the command may still commit. Only the owner of the partition refuses commands for good,
// with an outcome.
func (h *Handler) Submit(ctx context.Context, caller *Caller, id uint64, s *clientv1.Submit, waiter Waiter) *conversationv1.Error {
	command, refused := commands.Make(commands.Request{
		Sender: caller.User, ConversationID: ids.Conversation(s.GetConversationId()), CommandID: ids.Command(s.GetCommandId()), Attempt: s.GetAttempt(), Body: s.GetBody(),
	}, h.cfg.Level())
	if refused != nil {
		refused.Field = "submit." + refused.GetField()
		return refused
	}
	if !caller.Commands.Allow() {
		h.cfg.Metrics.Limits[metrics.LimitCommandRate].Inc()
		return Limited("too many commands of this user")
	}
	if refused := h.admitAdding(ctx, caller, s); refused != nil {
		return refused
	}
	begun, conversationID := time.Now(), ids.Conversation(command.GetConversationId())
	span, header := h.cfg.Tracer.Begin(ctx, caller.Traces, s, conversationID, h.cfg.Partitions)
	err := h.cfg.Submit(broker.Submission{
		Command: command,
		Header:  header,
		Accepted: func() {
			h.cfg.Metrics.Accepted.Observe(time.Since(begun).Seconds())
			span.Accepted()
			waiter.Accepted(id)
		},
		Done: func(outcome *conversationv1.Outcome) {
			h.cfg.Metrics.Outcome(outcome, time.Since(begun))
			waiter.Outcome(id, conversationID, outcome, span.Parent)
			span.End(outcome)
		},
	})
	if err != nil {
		span.Abandon(err)
	}
	switch {
	case errors.Is(err, broker.ErrConflict):
		return refusal(conversationv1.ErrorCode_ERROR_CODE_IDEMPOTENCY_CONFLICT, "submit.command_id", "the id is in use with another body")
	case err != nil:
		h.cfg.Metrics.Limits[metrics.LimitCommands].Inc()
		return Limited("the gateway has too many commands under way")
	}
	return nil
}
