package requests

import (
	"cmp"
	"context"
	"fmt"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/protocol"

	"github.com/runnelhq/runnel/services/gateway/metrics"
	"github.com/runnelhq/runnel/services/gateway/page"
)

func checkRead(r *clientv1.Read) *conversationv1.Error {
	return checkStretch("read", r, protocol.MaxPage)
}

// stretch is a request for a stretch of a conversation.
type stretch interface {
	GetConversationId() string
	GetLimit() uint32
	GetAfter() uint64
	GetBefore() uint64
	GetBackward() bool
}

// checkStretch checks a request for a stretch of at most the given number of items. name is the request's name in error messages.
func checkStretch(name string, r stretch, most uint32) *conversationv1.Error {
	switch {
	case !conversation.ValidID(r.GetConversationId()):
		return invalid(name+".conversation_id", "is not a conversation id")
	case r.GetLimit() > most:
		return invalid(name+".limit", fmt.Sprintf("must be at most %d", most))
	case r.GetAfter() != 0 && (r.GetBefore() != 0 || r.GetBackward()):
		return invalid(name+".after", "cannot be used together with before or backward")
	}
	return nil
}

// read reads a stretch of a conversation's log, and checks that no event is missing in it.
func (h *Handler) read(ctx context.Context, caller *Caller, r *clientv1.Read, bounds Bounds) (Answer, error) {
	h.cfg.Metrics.Reads[metrics.ReadClient].Inc()
	backward := r.GetBackward() || r.GetBefore() != 0
	read, err := h.cfg.History.Read(ctx, &historyv1.ReadRequest{
		ConversationId: r.GetConversationId(), Viewer: string(caller.User), After: r.GetAfter(), Before: r.GetBefore(),
		Limit: cmp.Or(r.GetLimit(), protocol.DefaultEventsPage), Backward: backward,
	})
	if err != nil {
		return nil, fmt.Errorf("read conversation: %w", err)
	}
	if backward {
		err = page.CheckFalling(ids.Conversation(r.GetConversationId()), read, ids.Seq(r.GetBefore()))
	} else {
		err = page.CheckRising(ids.Conversation(r.GetConversationId()), read, ids.Seq(r.GetAfter()))
	}
	if err != nil {
		return nil, err
	}
	page.Trim(read, bounds.EventBytes)
	return events{read}, nil
}

// events is the answer of a read: events are forwarded as they are stored.
type events struct{ read *historyv1.ReadResponse }

// Append implements Answer.
func (e events) Append(dst []byte, codec frame.Codec, id uint64) []byte {
	return frame.AppendPage(dst, codec, id, &frame.Page{
		Events: e.read.GetEvents(), Hidden: e.read.GetHidden(), Head: e.read.GetHead(), More: e.read.GetMore(),
	})
}
