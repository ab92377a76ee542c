package conversation

import (
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// View returns a stored message in its current form. If its body was erased, or cannot be decoded by this build, the
// message has no content.
func View(stored *historyv1.StoredMessage) *clientv1.MessageView {
	event, row := stored.GetEvent(), stored.GetRow()
	view := &clientv1.MessageView{
		Seq: event.GetSeq(), TimeMs: event.GetTimeMs(), Sender: event.GetSender(),
		EditSeq: row.GetEditSeq(), EditTimeMs: row.GetEditTimeMs(), DeletedSeq: row.GetDeletedSeq(),
		Replies: row.GetReplies(), LastReplySeq: row.GetLastReplySeq(),
	}
	for _, r := range stored.GetReactions() {
		view.Reactions = append(view.Reactions, &clientv1.ReactionSummary{Emoji: r.GetEmoji(), Count: r.GetCount(), Mine: r.GetMine()})
	}
	if view.GetDeletedSeq() != 0 {
		return view
	}
	newest := event
	if stored.GetEdit() != nil {
		newest = stored.GetEdit()
	}
	if view.Erased = len(newest.GetBody()) == 0; !view.GetErased() {
		view.Message = content(newest)
		if view.GetMessage() != nil {
			view.Message.ReplyTo = open(event, nil).target()
		}
	}
	return view
}

// worded is implemented by kinds whose events set a message's content.
type worded interface {
	// content returns the message's content after the event.
	content(body *conversationv1.Body) *conversationv1.Message
}

// content returns the message content that an event sets; nil if it is not known.
func content(event *conversationv1.Event) *conversationv1.Message {
	if r := rowOf(event.GetKind()); r != nil {
		if kind, ok := r.rules.(worded); ok {
			return kind.content(open(event, nil).body)
		}
	}
	return nil
}
