package inbox

import (
	"errors"

	"github.com/runnelhq/runnel/pkg/protocol"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// ErrSeq is the error of a frame with a seq above protocol.MaxSeq.
var ErrSeq = errors.New("gateway sent a seq that is out of range")

// CheckSeqs returns ErrSeq if a frame would move the client to a seq above protocol.MaxSeq: the client could never resume from
// such a position.
func CheckSeqs(f *clientv1.ServerFrame) error {
	highest := uint64(0)
	switch m := f.GetMessage().(type) {
	case *clientv1.ServerFrame_Event:
		highest = m.Event.GetSeq()
	case *clientv1.ServerFrame_Outcome:
		highest = m.Outcome.GetSeq()
	case *clientv1.ServerFrame_Page:
		highest = highestOfPage(m.Page)
	case *clientv1.ServerFrame_Heartbeat:
		for _, head := range m.Heartbeat.GetHeads() {
			highest = max(highest, head.GetSeq())
		}
	case *clientv1.ServerFrame_Connected:
		highest = highestOf(m.Connected.GetConversations()...)
	case *clientv1.ServerFrame_Conversations:
		highest = highestOf(m.Conversations.GetConversations()...)
	case *clientv1.ServerFrame_Attached:
		highest = highestOf(m.Attached.GetConversation())
	case *clientv1.ServerFrame_Detached:
		highest = m.Detached.GetLast()
	case *clientv1.ServerFrame_Hidden:
		highest = max(m.Hidden.GetFirst(), m.Hidden.GetLast())
	case *clientv1.ServerFrame_Forked:
		highest = max(m.Forked.GetHead(), m.Forked.GetSeq())
	}
	if highest > protocol.MaxSeq {
		return ErrSeq
	}
	return nil
}

// highestOf returns the highest seq in the descriptions of conversations, including the user's cursors: a conversation
// may begin at a cursor.
func highestOf(conversations ...*clientv1.Conversation) (highest uint64) {
	for _, info := range conversations {
		cursor := info.GetCursor()
		highest = max(highest, info.GetHead(), info.GetJoinedSeq(), cursor.GetDeliveredSeq(), cursor.GetReadSeq())
	}
	return highest
}

func highestOfPage(page *clientv1.Page) uint64 {
	highest := page.GetHead()
	for _, event := range page.GetEvents() {
		highest = max(highest, event.GetSeq())
	}
	return max(highest, highestOfRanges(page.GetHidden()))
}

func highestOfRanges(ranges []*conversationv1.Range) (highest uint64) {
	for _, r := range ranges {
		highest = max(highest, r.GetFirst(), r.GetLast())
	}
	return highest
}
