package inbox

import (
	"github.com/runnelhq/runnel/pkg/protocol"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
)

// Connecting begins an attempt to connect. It returns what the connect frame says: where conversations begin that the client does
// not know, and the positions from which the others continue.
//
// A connect frame has room for protocol.MaxResumePositions conversations. If the client has more, the connection is crowded:
// the conversations that are not named begin at their head, as far as the gateway is concerned, and the client reads what it
// lacks of them once the gateway has listed them. Of those among them that the user has left, the gateway says nothing;
// reconnectForUnnamed takes care of these.
func (in *Inbox) Connecting() (start clientv1.Start, positions []*clientv1.Position) {
	next := &connection{start: in.env.Start}
	// Whoever was away must not miss the beginning of what they joined meanwhile.
	if in.listed && next.start == clientv1.Start_START_HEAD {
		next.start = clientv1.Start_START_FIRST
	}
	start = next.start
	for _, first := range []bool{true, false} {
		for _, conv := range in.conversations {
			if conv.nameFirst != first {
				continue
			}
			if conv.followed = len(positions) < protocol.MaxResumePositions; !conv.followed {
				next.crowded, start = true, clientv1.Start_START_HEAD
				continue
			}
			positions = append(positions, conv.position())
		}
	}
	in.attempt = next
	return start, positions
}

// position is where the client resumes a conversation.
func (conv *Conversation) position() *clientv1.Position {
	position := &clientv1.Position{ConversationId: conv.ID(), Seq: conv.Last(), Hash: conv.LastHash()}
	if resumeOffByOne && conv.Last() > 0 {
		position.Seq, position.Hash = conv.Skip(conv.Last()+1).GetLast(), nil
	}
	return position
}

// listedAll notes that the gateway has named all conversations of the user.
func (in *Inbox) listedAll() {
	in.listed = true
	in.env.connection.listed, in.env.connection.strays = true, nil
	in.reconnectForUnnamed()
}

// reconnectForUnnamed finds the conversations that a crowded connection says nothing of: neither were they named in connect, nor
// are they among the user's, so the membership has ended. The next connect names them, and its gateway sends what is left of
// them and where they end. That connect waits until the gateway has told this about those that were named now.
func (in *Inbox) reconnectForUnnamed() {
	connection := in.env.connection
	if connection == nil || !connection.crowded || !connection.listed || connection.reconnect {
		return
	}
	unnamed := false
	for _, conv := range in.conversations {
		switch {
		case conv.listedBy == connection || conv.broken:
		case conv.followed:
			return
		default:
			conv.nameFirst, unnamed = true, true
		}
	}
	if unnamed {
		connection.reconnect = true
		in.env.reconnectIfKnown()
	}
}
