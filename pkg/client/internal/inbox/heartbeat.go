package inbox

import clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"

// catchUp is a backlog that may still arrive after connecting. to is the last seq of the backlog; was is the position of
// the conversation at the last heartbeat.
type catchUp struct{ to, was uint64 }

// receiveHeads compares the heads in a heartbeat with the client's positions. It detects lost events after which no event
// was received.
func (in *Inbox) receiveHeads(heads []*clientv1.Position) {
	for _, head := range heads {
		if conv := in.conversations[head.GetConversationId()]; conv != nil && head.GetSeq() > conv.Last() {
			conv.receiveHead(head.GetSeq())
		}
	}
	// A backlog counts as lost if the position did not move between two heartbeats.
	for conv, catch := range in.env.catchingUp {
		switch {
		case conv.Last() >= catch.to || conv.gone:
			delete(in.env.catchingUp, conv)
		case conv.Last() == catch.was && in.env.connection.beaten:
			delete(in.env.catchingUp, conv)
			conv.noteGap(catch.to)
		default:
			in.env.catchingUp[conv] = catchUp{to: catch.to, was: conv.Last()}
		}
	}
	in.env.connection.beaten = true
}

// receiveHead handles a head above Last.
func (conv *Conversation) receiveHead(head uint64) {
	if conv.suspicion != nil {
		conv.Announce(head)
		return
	}
	if catch, coming := conv.env.catchingUp[conv]; coming {
		conv.env.catchingUp[conv] = catchUp{to: max(catch.to, head), was: catch.was}
		return
	}
	conv.noteGap(head)
}
