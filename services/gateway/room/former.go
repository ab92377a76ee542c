package room

import (
	"context"

	"github.com/runnelhq/runnel/pkg/ids"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/gateway/metrics"
	"github.com/runnelhq/runnel/services/gateway/page"
)

// Former reads the events that a client lacks of a conversation that its user left or was removed from. The user may never have
// been a member of it.
type Former struct {
	hub            *Hub
	to             *Listener
	conversationID ids.Conversation
	after          ids.Seq
	hash           uint64 // hash of the event at after, to be compared; 0 when that is done
}

// FormerState is the result of Former.FillOnce.
type FormerState int

// The results of FillOnce.
const (
	// FormerMore: some events were queued, and there are more.
	FormerMore FormerState = iota
	// FormerEnded: everything was queued.
	FormerEnded
	// FormerMember: the user is a member again.
	FormerMember
	// FormerForked: the client is on another branch of the log.
	FormerForked
)

// Former begins to read a former conversation after a client's position.
func (h *Hub) Former(to *Listener, position *clientv1.Position) *Former {
	return &Former{hub: h, to: to, conversationID: ids.Conversation(position.GetConversationId()), after: ids.Seq(position.GetSeq()), hash: page.HashPrefix(position.GetHash())}
}

// Position is the last seq that the client has or was sent.
func (f *Former) Position() ids.Seq { return f.after }

// FillOnce queues the next page. head is the seq of the last event that the user may see. The caller flushes the link, and lets
// other sessions read from the store between pages.
func (f *Former) FillOnce(ctx context.Context) (state FormerState, head ids.Seq, err error) {
	begin := f.after
	if f.hash != 0 && f.after > 0 {
		begin-- // the event that the client has is read as well, for its hash
	}
	f.hub.cfg.Metrics.Reads[metrics.ReadPast].Inc()
	read, err := f.hub.cfg.Log.Read(ctx, &historyv1.ReadRequest{
		ConversationId: string(f.conversationID), Viewer: string(f.to.User), After: uint64(begin), Limit: maxMessageEvents,
	})
	switch {
	case err != nil:
		return FormerMore, 0, err
	case read.GetMember():
		return FormerMember, 0, nil
	}
	if err := page.CheckRising(f.conversationID, read, begin); err != nil {
		return FormerMore, 0, err
	}
	head = ids.Seq(read.GetHead())
	if f.after > head || (begin < f.after && page.TakePosition(read, f.after, f.hash)) {
		return FormerForked, head, nil
	}
	f.hash = 0 // only the client's own position is compared, once
	page.Trim(read, f.hub.PageBytes(f.to.Events))
	f.hub.queuePast(f.to, f.conversationID, f.hub.cfg.Recorder.KeyOf(f.conversationID), read, ^ids.Seq(0))
	f.after = max(f.after, page.Last(read, ^ids.Seq(0)))
	if read.GetMore() {
		return FormerMore, head, nil
	}
	return FormerEnded, head, nil
}
