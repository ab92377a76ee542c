package gateway

import (
	"errors"
	"fmt"
	"time"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/frame"

	"github.com/runnelhq/runnel/services/gateway/metrics"
)

// maxAttempt is the most refusals of one command after which a client may ask again.
const maxAttempt = 1000

// submit takes a command to the broker; the answer is sent when its outcome arrives. What is refused here is answered with an
// error, which means "not taken": it says nothing about earlier copies of the command. Only the owner of the partition refuses
// commands for good, with an outcome.
func (c *conn) submit(id uint64, s *clientv1.Submit) {
	command, refusal := admitCommand(c.user.id, s, c.gw.level())
	if refusal != nil {
		c.refuse(id, refusal.GetCode(), refusal.GetField(), refusal.GetMessage())
		return
	}
	if !c.user.commands.Allow() {
		c.gw.metrics.Limits[metrics.LimitCommandRate].Inc()
		c.limited(id, "too many commands of this user")
		return
	}
	command.Salt = chain.NewSalt()
	begun, conversationID := time.Now(), command.GetConversationId()
	span, header := c.gw.trace.Begin(c.gw.ctx, c.user.traces, s, conversationID, c.gw.partitions)
	submission := broker.Submission{
		Command: command,
		Header:  header,
		Done: func(outcome *conversationv1.Outcome) {
			c.gw.metrics.Outcome(outcome, time.Since(begun))
			c.enqueue(wrap(c.codec, func(dst []byte) []byte { return frame.AppendOutcome(dst, c.codec, id, outcome, span.Parent) }))
			c.gw.metrics.FramesOut.Inc()
			c.gw.hub.flushSoon(conversationID, c)
			span.End(outcome)
		},
	}
	submission.Accepted = func() {
		c.gw.metrics.Accepted.Observe(time.Since(begun).Seconds())
		span.Accepted()
		if c.accepted {
			c.reply(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Accepted{Accepted: &clientv1.Accepted{RequestId: id}}})
		}
	}
	switch err := c.gw.submitter.Load().Submit(submission); {
	case errors.Is(err, broker.ErrConflict):
		span.Abandon(err)
		c.refuse(id, conversationv1.ErrorCode_ERROR_CODE_IDEMPOTENCY_CONFLICT, "submit.command_id", "the id is in use with another body")
	case err != nil:
		span.Abandon(err)
		c.gw.metrics.Limits[metrics.LimitCommands].Inc()
		c.limited(id, "the gateway has too many commands under way")
	}
}

// admitCommand makes the command of a submit, without its salt, or says why it is not taken. Ids are held to the strictest
// form, and the body is encoded here once and for all: workers and the store are more lenient, so that what a newer gateway
// admits is not refused by an older one of them.
func admitCommand(sender string, s *clientv1.Submit, level conversation.Level) (*brokerv1.Command, *conversationv1.Error) {
	body := s.GetBody()
	needed := conversation.LevelOf(body)
	switch {
	case !conversation.AdmissibleCommandID(s.GetCommandId()):
		return nil, refusalOf(codeInvalid, "submit.command_id", "must be a UUIDv7 in canonical lower-case form")
	case s.GetAttempt() > maxAttempt:
		return nil, refusalOf(codeInvalid, "submit.attempt", fmt.Sprintf("must be at most %d; choose a new command id", maxAttempt))
	case needed != 0 && !conversation.MayAsk(body):
		return nil, refusalOf(conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN, "submit.body", "only internal services may ask for this")
	}
	if err := conversation.Validate(sender, body); err != nil {
		return nil, refusalOf(codeInvalid, fieldPath("submit.body", err.Field), err.Rule)
	}
	if needed > level {
		return nil, refusalOf(codeInvalid, "submit.body", fmt.Sprintf(
			"needs protocol level %d, and this installation is at level %d: an operator must raise the installation's level first", needed, level))
	}
	conversationID := s.GetConversationId()
	switch create := body.GetCreate(); {
	case create != nil && conversationID != "":
		return nil, refusalOf(codeInvalid, "submit.conversation_id", "must be empty for create: the id follows from the command")
	case create != nil:
		conversationID = conversation.CreateID(sender, s.GetCommandId(), create)
	case !conversation.AdmissibleID(conversationID):
		return nil, refusalOf(codeInvalid, "submit.conversation_id", "is not a conversation id")
	}
	encoded, err := conversation.EncodeBody(body)
	if err != nil {
		return nil, refusalOf(codeInvalid, "submit.body", "cannot be encoded")
	}
	return &brokerv1.Command{
		ConversationId: conversationID, Sender: sender, CommandId: s.GetCommandId(), Body: encoded,
		Attempt: s.GetAttempt(), Level: uint32(needed),
	}, nil
}

func refusalOf(code conversationv1.ErrorCode, field, message string) *conversationv1.Error {
	return &conversationv1.Error{Code: code, Field: field, Message: message}
}

func fieldPath(parent, field string) string {
	if field == "" {
		return parent
	}
	return parent + "." + field
}
