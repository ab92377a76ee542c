package store

import (
	"context"
	"database/sql"

	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/protocol"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// Views stores the current state of messages.
type Views interface {
	// Facts returns the facts about messages that commands refer to; messages that do not exist are left out.
	Facts(ctx context.Context, needs []*historyv1.Need) ([]*historyv1.Fact, error)
	// ReadMessages returns a page of current messages, from one snapshot. ErrNotFound if the viewer is not a member now.
	ReadMessages(ctx context.Context, request *historyv1.ReadMessagesRequest) (*historyv1.ReadMessagesResponse, error)
	// ReplaceViews replaces the stored view rows and reactions of one conversation if its head is head. Otherwise it
	// changes nothing and returns false.
	ReplaceViews(ctx context.Context, conversationID ids.Conversation, head ids.Seq, rows []*historyv1.MessageRow, reactions []*historyv1.Reaction) (bool, error)
	// ConversationIDs returns at most MaxPage ids of conversations above the id after, in rising order.
	ConversationIDs(ctx context.Context, after ids.Conversation) ([]string, error)
}

// MessagesLimit returns the number of messages to return for a request for n messages; n is at most
// protocol.MaxMessagesPage.
func MessagesLimit(n uint32) int {
	if n == 0 {
		return protocol.DefaultMessagesPage
	}
	return int(n)
}

// MessagePage cuts a page of messages out of the events that a viewer may see. fetch reads the messages of a stretch and
// passes each to take with its size, as Fetch does for events.
func MessagePage(
	view View, request *historyv1.ReadMessagesRequest,
	fetch func(first, last ids.Seq, backward bool, limit int, take func(message *historyv1.StoredMessage, size int) bool) error,
) (*historyv1.ReadMessagesResponse, error) {
	limit := MessagesLimit(request.GetLimit())
	response := &historyv1.ReadMessagesResponse{}
	// The page reads one event more than requested, to learn whether there are more messages: the next event may not be a
	// message.
	page, err := Page(view, &historyv1.ReadRequest{
		After: request.GetAfter(), Before: request.GetBefore(), Backward: request.GetBackward(), Limit: uint32(limit + 1),
	}, func(first, last ids.Seq, backward bool, limit int, take takeEvent) error {
		return fetch(first, last, backward, limit, func(message *historyv1.StoredMessage, size int) bool {
			view.withoutHiddenEdit(message)
			response.Messages = append(response.Messages, message)
			return take(message.GetEvent(), size)
		})
	})
	if err != nil {
		return nil, err
	}
	response.Head, response.More = page.GetHead(), page.GetMore()
	if len(response.GetMessages()) > limit {
		response.Messages, response.More = response.GetMessages()[:limit], true
	}
	return response, nil
}

// withoutHiddenEdit removes an edit that was made while the viewer was not a member, because the viewer may not see its
// text. The message then has the content from before.
func (v *View) withoutHiddenEdit(message *historyv1.StoredMessage) {
	row := message.GetRow()
	if row.GetEditSeq() == 0 || v.shows(ids.Seq(row.GetEditSeq())) {
		return
	}
	message.Edit, message.Row = nil, &historyv1.MessageRow{
		Seq: row.GetSeq(), DeletedSeq: row.GetDeletedSeq(), Replies: row.GetReplies(), LastReplySeq: row.GetLastReplySeq(),
	}
}

// AddReactions adds reactions to messages. The calls of add must be sorted by target, then by falling frequency.
func AddReactions(messages []*historyv1.StoredMessage, each func(add func(target uint64, count *historyv1.ReactionCount)) error) error {
	bySeq := make(map[uint64]*historyv1.StoredMessage, len(messages))
	for _, message := range messages {
		bySeq[message.GetEvent().GetSeq()] = message
	}
	return each(func(target uint64, count *historyv1.ReactionCount) {
		if message := bySeq[target]; message != nil && len(message.GetReactions()) < protocol.MaxReactionSummaries {
			message.Reactions = append(message.Reactions, count)
		}
	})
}

// ViewRow is a view row as it is scanned: every field is NULL if the message has no view row.
type ViewRow struct {
	seq, edit, editMs, deleted, replies, lastReply sql.NullInt64
}

// Dest returns the scan destinations of the columns seq, edit_seq, edit_time_ms, deleted_seq, replies and last_reply_seq.
func (r *ViewRow) Dest() []any {
	return []any{&r.seq, &r.edit, &r.editMs, &r.deleted, &r.replies, &r.lastReply}
}

// EditSeq returns the seq of the newest edit; 0 if there is none.
func (r *ViewRow) EditSeq() ids.Seq { return ids.Seq(r.edit.Int64) }

// Row returns the view row; nil if the message has none.
func (r *ViewRow) Row() *historyv1.MessageRow {
	if !r.seq.Valid {
		return nil
	}
	return &historyv1.MessageRow{
		Seq: uint64(r.seq.Int64), EditSeq: uint64(r.EditSeq()), EditTimeMs: r.editMs.Int64, DeletedSeq: uint64(r.deleted.Int64),
		Replies: uint32(r.replies.Int64), LastReplySeq: uint64(r.lastReply.Int64),
	}
}
