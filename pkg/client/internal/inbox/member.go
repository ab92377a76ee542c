package inbox

import (
	"github.com/runnelhq/runnel/pkg/client/internal/stream"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
)

// source is the way in which the client learned of a conversation.
type source int

const (
	fromConnected source = iota
	fromAttached
	fromList
)

// receiveConversation handles the gateway's description of a conversation of the user.
func (in *Inbox) receiveConversation(info *clientv1.Conversation, from source) {
	conv := in.conversations[info.GetConversationId()]
	known := conv != nil
	// The server had lost this conversation, and its creator has created it again: its log starts again.
	recreated := !known && in.env.Commands.Lost(info.GetConversationId())
	if !known {
		after := in.startOf(info, from)
		if recreated {
			after = beforeJoin(info)
		}
		conv = &Conversation{
			env:      in.env,
			Stream:   stream.New(info.GetConversationId(), after),
			followed: from != fromList && !in.env.connection.crowded,
		}
		in.conversations[conv.ID()] = conv
		in.env.Program.Begins(conv.ID(), after)
	}
	conv.listedBy, conv.nameFirst = in.env.connection, false
	conv.SetJoined(info.GetJoinedSeq())
	if conv.leaving && info.GetJoinedSeq() > conv.leaveAt {
		// The user became a member again before all events of the earlier membership were handed over. The conversation
		// continues.
		conv.leaving, conv.leaveAt = false, 0
	}
	if !conv.announced {
		conv.announced = true
		in.env.Program.Attached(info)
	}
	switch head := info.GetHead(); {
	case recreated:
		conv.forkAt(conv.Last(), nil)
	case conv.suspicion != nil:
		conv.Announce(head)
	case known && head < conv.Last(),
		(from == fromConnected || (from == fromAttached && !known)) && head < in.env.Commands.Newest(conv.ID()):
		// Events that were pushed or committed meanwhile may be newer than this description, so history decides.
		conv.Announce(head)
		conv.suspect(nil)
	case head > conv.Last() && conv.followed:
		in.env.catchingUp[conv] = catchUp{to: head, was: conv.Last()}
	case head > conv.Last():
		conv.fill(head)
	}
	// The last acknowledgement of the previous connection may have been lost.
	if info.GetCursor().GetReadSeq() < conv.read {
		conv.unsentRead = true
		conv.acknowledge()
	}
	if info.GetCursor().GetDeliveredSeq() < conv.delivered {
		conv.acknowledge()
	}
}

// startOf returns the seq after which an unknown conversation begins.
func (in *Inbox) startOf(info *clientv1.Conversation, from source) uint64 {
	switch {
	case from == fromAttached || in.env.connection.start == clientv1.Start_START_FIRST:
		// The user has just joined an attached conversation.
		return beforeJoin(info)
	case in.env.connection.start == clientv1.Start_START_DELIVERED:
		return max(beforeJoin(info), info.GetCursor().GetDeliveredSeq())
	}
	// The head in a list may be newer than the head at connect. The first event that was pushed since then shows the head at connect.
	if first := in.env.connection.strays[info.GetConversationId()]; from == fromList && first > 0 {
		return min(info.GetHead(), first-1)
	}
	return info.GetHead()
}

// beforeJoin returns the seq before the first event that the user may see.
func beforeJoin(info *clientv1.Conversation) uint64 { return max(info.GetJoinedSeq(), 1) - 1 }

// receiveDetached handles the end of the user's membership. For the program, the membership ends after its last event was
// handed over.
func (in *Inbox) receiveDetached(detached *clientv1.Detached) {
	conv := in.conversations[detached.GetConversationId()]
	if conv == nil {
		return
	}
	last := detached.GetLast()
	if last == 0 {
		in.env.Log.Warn("the server does not know a conversation that this client has", "conversation_id", conv.ID())
		if in.env.Commands.Created(conv.ID()) {
			conv.forkAt(0, nil)
		} else {
			in.env.Commands.MarkLost(conv.ID()) // until the creator creates it again; see receiveConversation
		}
	}
	conv.leaving, conv.leaveAt = true, last
	conv.leaveIf(conv.broken || conv.Last() >= last)
	if !conv.gone {
		conv.fill(last)
	}
}

// leaveIf removes a conversation whose membership has ended, once all its events were handed over.
func (conv *Conversation) leaveIf(over bool) {
	if !conv.leaving || !over || conv.gone {
		return
	}
	conv.gone = true
	conv.env.forget(conv)
	delete(conv.env.catchingUp, conv)
	conv.env.Program.Detached(&clientv1.Detached{ConversationId: conv.ID(), Last: conv.leaveAt})
}
