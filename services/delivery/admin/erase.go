package admin

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/telemetry"
)

// Erase has content of a conversation erased: by a command through the stream, so that the erasure has its place in the log.
func (s *Server) Erase(ctx context.Context, request *adminv1.EraseRequest) (*adminv1.EraseResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	command, err := eraseCommand(request)
	if err != nil {
		return nil, err
	}
	outcome, err := s.Submit(ctx, command, telemetry.InjectHeader(ctx, nil))
	const next = "erase again with the same command id"
	if err != nil {
		return nil, s.unsent(ctx, err, next)
	}
	s.acted(ctx, "erase", "conversation", command.GetConversationId(), "command", command.GetCommandId(), "seq", outcome.GetSeq(),
		"events", len(request.GetErase().GetSeqs()), "of_user", request.GetErase().GetSender(), "before_ms", request.GetErase().GetBeforeMs(),
		"code", outcome.GetError().GetCode().String())
	if outcome.GetError().GetCode() == conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE {
		return nil, status.Error(codes.Unavailable, "it is not known whether the content was erased; "+next)
	}
	return &adminv1.EraseResponse{Outcome: outcome}, nil
}

// eraseCommand checks a request and makes the command of it. The error names the field.
func eraseCommand(request *adminv1.EraseRequest) (*brokerv1.Command, error) {
	if !conversation.ValidID(request.GetConversationId()) {
		return nil, invalidID()
	}
	if !conversation.AdmissibleCommandID(request.GetCommandId()) {
		return nil, invalid("command_id: must be a UUID version 7 in canonical lower-case form")
	}
	if len(request.GetErase().ProtoReflect().GetUnknown()) > 0 {
		return nil, invalid("erase: has a field that this version does not know")
	}
	body := &conversationv1.Body{Action: &conversationv1.Body_Erase{Erase: request.GetErase()}}
	if request.GetErase() == nil {
		body = &conversationv1.Body{Action: &conversationv1.Body_Erase{Erase: &conversationv1.Erase{}}}
	}
	if err := conversation.Validate(conversation.ServerUser, body); err != nil {
		return nil, invalid(err.Error())
	}
	encoded, err := conversation.EncodeBody(body)
	if err != nil {
		return nil, invalid("erase: cannot be encoded: its text must be UTF-8")
	}
	return &brokerv1.Command{
		ConversationId: request.GetConversationId(), Sender: conversation.ServerUser, CommandId: request.GetCommandId(),
		Body: encoded, Salt: chain.NewSalt(), Level: uint32(conversation.LevelOf(body)),
	}, nil
}
