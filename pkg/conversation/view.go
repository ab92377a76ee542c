package conversation

import (
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// View is a stored message as a reader sees it now. A body that was erased, or that this build cannot decode, leaves the
// message without content.
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

// worded is a kind whose events give a message its content.
type worded interface {
	// content is what the message says after the event.
	content(body *conversationv1.Body) *conversationv1.Message
}

// content is what an event says; nil when that is not known.
func content(event *conversationv1.Event) *conversationv1.Message {
	if r := rowOf(event.GetKind()); r != nil {
		if kind, ok := r.rules.(worded); ok {
			return kind.content(open(event, nil).body)
		}
	}
	return nil
}
