package requests

import (
	"cmp"
	"context"
	"fmt"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/protocol"

	"github.com/runnelhq/runnel/services/gateway/metrics"
)

func checkReadMessages(r *clientv1.ReadMessages) *conversationv1.Error {
	return checkStretch("read_messages", r, protocol.MaxMessagesPage)
}

// readMessages reads messages as they are now.
func (h *Handler) readMessages(ctx context.Context, caller *Caller, r *clientv1.ReadMessages, bounds Bounds) (Answer, error) {
	h.cfg.Metrics.Reads[metrics.ReadViews].Inc()
	read, err := h.cfg.History.ReadMessages(ctx, &historyv1.ReadMessagesRequest{
		ConversationId: r.GetConversationId(), Viewer: string(caller.User),
		After: r.GetAfter(), Before: r.GetBefore(), Limit: cmp.Or(r.GetLimit(), protocol.DefaultMessagesPage),
		Backward: r.GetBackward() || r.GetBefore() != 0,
		Kinds:    h.messageKinds,
	})
	if err != nil {
		return nil, fmt.Errorf("read messages: %w", err)
	}
	return answer{&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Messages{Messages: messageViews(read, bounds.Bytes)}}}, nil
}

// messageViews returns a page of at most about limit bytes.
func messageViews(read *historyv1.ReadMessagesResponse, limit int) *clientv1.Messages {
	views := &clientv1.Messages{Head: read.GetHead(), More: read.GetMore()}
	size := 0
	for i, stored := range read.GetMessages() {
		view := conversation.View(stored)
		if size += view.SizeVT(); size > limit && i > 0 {
			views.More = true
			break
		}
		views.Messages = append(views.Messages, view)
	}
	return views
}
