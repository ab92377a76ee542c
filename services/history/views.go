package history

import (
	"context"
	"fmt"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/protocol"
	"github.com/runnelhq/runnel/pkg/rpc"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

// GetFacts returns the facts about messages that commands refer to.
func (s *Server) GetFacts(ctx context.Context, request *historyv1.GetFactsRequest) (*historyv1.GetFactsResponse, error) {
	return do(ctx, s, s.metrics.facts, checkNeeds(request.GetNeeds()), func(ctx context.Context) (*historyv1.GetFactsResponse, error) {
		facts, err := s.store.Facts(ctx, request.GetNeeds())
		return &historyv1.GetFactsResponse{Facts: facts}, err
	})
}

// ReadMessages returns a page of current messages.
func (s *Server) ReadMessages(ctx context.Context, request *historyv1.ReadMessagesRequest) (*historyv1.ReadMessagesResponse, error) {
	return do(ctx, s, s.metrics.readMessages, checkReadMessages(request), func(ctx context.Context) (*historyv1.ReadMessagesResponse, error) {
		page, err := s.store.ReadMessages(ctx, request)
		for _, message := range page.GetMessages() {
			s.reportDamage(ctx, message.GetEvent())
			if message.GetEdit() != nil {
				s.reportDamage(ctx, message.GetEdit())
			}
		}
		return page, err
	})
}

// ListRefusals returns the stored refusals of a partition.
func (s *Server) ListRefusals(ctx context.Context, request *historyv1.ListRefusalsRequest) (*historyv1.ListRefusalsResponse, error) {
	return do(ctx, s, s.metrics.listRefusals, s.checkListRefusals(request), func(ctx context.Context) (*historyv1.ListRefusalsResponse, error) {
		return s.store.Refusals(ctx, request)
	})
}

func checkNeeds(needs []*historyv1.Need) error {
	if err := checkCount("needs", len(needs)); err != nil {
		return err
	}
	for i, need := range needs {
		switch {
		case !conversation.ValidID(need.GetConversationId()):
			return store.Invalid(fmt.Sprintf("needs[%d].conversation_id", i), "is not a conversation id")
		case need.GetSeq() > maxNumber:
			return store.Invalid(fmt.Sprintf("needs[%d].seq", i), "must be at most 2^63-1")
		case need.GetUserId() != "" && !conversation.ValidSender(need.GetUserId()):
			return store.Invalid(fmt.Sprintf("needs[%d].user_id", i), "is not a user id")
		}
	}
	return nil
}

func checkReadMessages(request *historyv1.ReadMessagesRequest) error {
	if err := checkUser("viewer", request.GetViewer()); err != nil {
		return err
	}
	if err := checkStretch(ids.Conversation(request.GetConversationId()), ids.Seq(request.GetAfter()), ids.Seq(request.GetBefore())); err != nil {
		return err
	}
	if request.GetLimit() > protocol.MaxMessagesPage {
		return store.Invalid("limit", "must be at most %d", protocol.MaxMessagesPage)
	}
	if n := len(request.GetKinds()); n == 0 || n > rpc.MaxItems {
		return store.Invalid("kinds", "must be 1 to %d", rpc.MaxItems)
	}
	return nil
}

func (s *Server) checkListRefusals(request *historyv1.ListRefusalsRequest) error {
	if err := s.checkPartition("partition", ids.Partition(request.GetPartition())); err != nil {
		return err
	}
	if request.GetAfter() != nil {
		if field, rule := checkKey(request.GetAfter()); rule != "" {
			return store.Invalid("after."+field, "%s", rule)
		}
	}
	return checkLimit(request.GetLimit())
}

// reportDamage warns operators about a damaged event: its body is of another kind, or is missing although it was not
// erased. Verification of the log finds the same event.
func (s *Server) reportDamage(ctx context.Context, event *conversationv1.Event) {
	body := event.GetBody()
	if lost := len(body) == 0 && len(event.GetCommitment()) == 0; lost || (len(body) > 0 && conversation.KindOfBytes(body) != event.GetKind()) {
		s.metrics.damaged.Inc()
		s.log.ErrorContext(ctx, "the stored body of an event cannot be decoded", "conversation", event.GetConversationId(), "seq", event.GetSeq())
	}
}
