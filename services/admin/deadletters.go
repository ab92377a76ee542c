package admin

import (
	"context"
	"crypto/rand"
	"errors"

	"github.com/nats-io/nats.go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/commands"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/telemetry"
)

// headerMsgID is the header by which the broker detects duplicates of a message.
const headerMsgID = "Nats-Msg-Id"

// ListDeadLetters lists dead letters without their payloads.
func (s *Server) ListDeadLetters(ctx context.Context, request *adminv1.ListDeadLettersRequest) (*adminv1.ListDeadLettersResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	page, err := s.History.ListDeadLetters(ctx, &historyv1.ListDeadLettersRequest{
		Partition: request.Partition, After: request.GetAfter(), Limit: request.GetLimit(),
	})
	if err != nil {
		return nil, err
	}
	return &adminv1.ListDeadLettersResponse{DeadLetters: page.GetDeadLetters(), More: page.GetMore()}, nil
}

// GetDeadLetter returns one dead letter. It includes the command if the payload can be decoded.
func (s *Server) GetDeadLetter(ctx context.Context, request *adminv1.GetDeadLetterRequest) (*adminv1.GetDeadLetterResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	letter, err := s.letter(ctx, request.GetDeadLetterId())
	if err != nil {
		return nil, err
	}
	response := &adminv1.GetDeadLetterResponse{DeadLetter: letter}
	if command := commandIn(letter); command != nil {
		response.ConversationId, response.Sender = command.GetConversationId(), command.GetSender()
		response.CommandId = command.GetCommandId()
		if body, err := conversation.DecodeBody(command.GetBody()); err == nil {
			response.Body = body
		}
	}
	return response, nil
}

// RetryDeadLetter sends the command again, in its next attempt. If the command was committed meanwhile, because its
// sender retried it, the first outcome is returned. When the command is committed, the dead letter is deleted. A refusal
// of the retry is remembered like any refusal, so a further retry gets the same refusal for ten minutes.
func (s *Server) RetryDeadLetter(ctx context.Context, request *adminv1.RetryDeadLetterRequest) (*adminv1.RetryDeadLetterResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	letter, err := s.letter(ctx, request.GetDeadLetterId())
	if err != nil {
		return nil, err
	}
	command, err := again(letter)
	if err != nil {
		return nil, err
	}
	// A new message id, so that the broker does not drop the message as a duplicate of the dead-lettered copy.
	header := nats.Header{headerMsgID: {"retry." + rand.Text()}}
	outcome, err := s.Submit(ctx, command, telemetry.InjectHeader(ctx, header))
	if err != nil {
		return nil, s.unsent(ctx, err, "the dead letter is kept, retry it")
	}
	code := outcome.GetError().GetCode()
	s.acted(ctx, "retry a dead letter", "dead_letter", request.GetDeadLetterId(), "conversation", command.GetConversationId(),
		"command", command.GetCommandId(), "seq", outcome.GetSeq(), "refused", outcome.GetError() != nil, "code", code.String())
	switch code {
	case conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE:
		return nil, status.Error(codes.Unavailable, "it is not known whether the command was carried out; the dead letter is kept, retry it")
	case conversationv1.ErrorCode_ERROR_CODE_UNSPECIFIED: // committed
	default:
		// The retry was refused. The dead letter is the only copy of the command, so it stays until an operator drops it.
		return &adminv1.RetryDeadLetterResponse{Outcome: outcome}, nil
	}
	// The command is committed, so drop the dead letter even if the caller no longer waits.
	dropping, done := context.WithTimeout(context.WithoutCancel(ctx), gatherTimeout)
	defer done()
	_, err = s.History.DropDeadLetter(dropping, &historyv1.DropDeadLetterRequest{DeadLetterId: request.GetDeadLetterId()})
	if err != nil && !isNotFound(err) {
		return nil, status.Error(codes.Unavailable, "the command is committed, but the dead letter could not be dropped; drop it, or retry it: it is the same command")
	}
	return &adminv1.RetryDeadLetterResponse{Outcome: outcome}, nil
}

// unsent returns the error for a command without an outcome. next tells the operator what to do.
func (s *Server) unsent(ctx context.Context, err error, next string) error {
	switch {
	case errors.Is(err, broker.ErrBusy):
		return status.Error(codes.ResourceExhausted, "too many commands are under way; try again later")
	case errors.Is(err, broker.ErrConflict):
		return status.Error(codes.Aborted, "a command with the same id and another body is under way; try again later")
	case ctx.Err() != nil:
		return status.Error(status.FromContextError(ctx.Err()).Code(), "it is not known whether the command was carried out; "+next)
	}
	if _, coded := status.FromError(err); coded {
		return err
	}
	s.Log.WarnContext(ctx, "an operator's command could not be sent", "error", err)
	return status.Error(codes.Unavailable, "the command could not be sent; "+next)
}

// DropDeadLetter deletes a dead letter permanently.
func (s *Server) DropDeadLetter(ctx context.Context, request *adminv1.DropDeadLetterRequest) (*adminv1.DropDeadLetterResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if request.GetDeadLetterId() == "" {
		return nil, invalid("dead_letter_id: must be set")
	}
	if _, err := s.History.DropDeadLetter(ctx, &historyv1.DropDeadLetterRequest{DeadLetterId: request.GetDeadLetterId()}); err != nil {
		return nil, err
	}
	s.acted(ctx, "drop a dead letter", "dead_letter", request.GetDeadLetterId())
	return &adminv1.DropDeadLetterResponse{}, nil
}

func (s *Server) letter(ctx context.Context, id string) (*historyv1.StoredDeadLetter, error) {
	if id == "" {
		return nil, invalid("dead_letter_id: must be set")
	}
	found, err := s.History.GetDeadLetter(ctx, &historyv1.GetDeadLetterRequest{DeadLetterId: id})
	if err != nil {
		return nil, err
	}
	return found.GetDeadLetter(), nil
}

// commandIn decodes the command of a dead letter; nil if the payload is not a command.
func commandIn(letter *historyv1.StoredDeadLetter) *brokerv1.Command {
	payload := letter.GetLetter().GetPayload()
	command := &brokerv1.Command{}
	if len(payload) == 0 || command.UnmarshalVT(payload) != nil {
		return nil
	}
	return command
}

// again builds the command of a dead letter for another attempt.
func again(letter *historyv1.StoredDeadLetter) (*brokerv1.Command, error) {
	copied := commandIn(letter)
	if copied == nil {
		return nil, status.Error(codes.FailedPrecondition, "the dead letter does not contain a command that this version can decode; it can only be dropped")
	}
	made, ok := commands.Again(copied)
	if !ok {
		return nil, status.Error(codes.FailedPrecondition, "the ids of the command are malformed; the dead letter can only be dropped")
	}
	return made, nil
}
