package admin

import (
	"context"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/commands"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/telemetry"
)

// Erase erases content of a conversation. It sends a command through the stream, so that the erasure has a position in
// the log.
func (s *Server) Erase(ctx context.Context, request *adminv1.EraseRequest) (*adminv1.EraseResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	made, err := eraseCommand(request)
	if err != nil {
		return nil, err
	}
	outcome, err := s.Submit(ctx, made, telemetry.InjectHeader(ctx, nil))
	const next = "erase again with the same command id"
	if err != nil {
		return nil, s.unsent(ctx, err, next)
	}
	s.acted(ctx, "erase", "conversation", made.GetConversationId(), "command", made.GetCommandId(), "seq", outcome.GetSeq(),
		"events", len(request.GetErase().GetSeqs()), "of_user", request.GetErase().GetSender(), "before_ms", request.GetErase().GetBeforeMs(),
		"code", outcome.GetError().GetCode().String())
	if outcome.GetError().GetCode() == conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE {
		return nil, status.Error(codes.Unavailable, "it is not known whether the content was erased; "+next)
	}
	return &adminv1.EraseResponse{Outcome: outcome}, nil
}

// eraseCommand checks a request and returns its command. The error names the invalid field.
func eraseCommand(request *adminv1.EraseRequest) (*brokerv1.Command, error) {
	if len(request.GetErase().ProtoReflect().GetUnknown()) > 0 {
		return nil, invalid("erase: has a field that this version does not know")
	}
	erase := request.GetErase()
	if erase == nil {
		erase = &conversationv1.Erase{}
	}
	if sender := erase.GetSender(); sender != "" {
		user, err := userNamed("erase.sender", sender)
		if err != nil {
			return nil, err
		}
		erase.Sender = user
	}
	made, refused := commands.Make(commands.Request{
		Sender: conversation.ServerUser, ConversationID: ids.Conversation(request.GetConversationId()), CommandID: ids.Command(request.GetCommandId()),
		Body: &conversationv1.Body{Action: &conversationv1.Body_Erase{Erase: erase}},
	}, conversation.MaxLevel())
	if refused != nil {
		return nil, invalid(strings.TrimPrefix(refused.GetField(), "body.") + ": " + refused.GetMessage())
	}
	return made, nil
}
