package inbox

import (
	"github.com/runnelhq/runnel/pkg/protocol"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
)

// Connecting begins an attempt to connect. It returns the content of the connect frame: the starting point of unknown
// conversations, and the positions from which the known ones continue.
//
// A connect frame has room for protocol.MaxResumePositions conversations, or for fewer if the latest gateway has a lower
// limit. It never has more: the limit of the next gateway is not known yet. If the client has more, the connection is
// crowded. Then the gateway pushes the conversations not named in the frame from their heads, and the client reads the
// missing events of each once the gateway has listed it. The gateway does not mention a conversation that is not named
// and that the user has left; reconnectForUnnamed handles these.
func (in *Inbox) Connecting() (start clientv1.Start, positions []*clientv1.Position) {
	next := &connection{start: in.env.Start}
	// A user who was offline must not miss the beginning of conversations that they joined meanwhile.
	if in.listed && next.start == clientv1.Start_START_HEAD {
		next.start = clientv1.Start_START_FIRST
	}
	start = next.start
	room := min(in.env.limits.ResumePositions, protocol.MaxResumePositions)
	for _, first := range []bool{true, false} {
		for _, conv := range in.conversations {
			if conv.nameFirst != first {
				continue
			}
			if conv.followed = len(positions) < room; !conv.followed {
				next.crowded, start = true, clientv1.Start_START_HEAD
				continue
			}
			positions = append(positions, conv.position())
		}
	}
	in.attempt = next
	return start, positions
}

// position returns the client's position for resuming a conversation.
func (conv *Conversation) position() *clientv1.Position {
	position := &clientv1.Position{ConversationId: conv.ID(), Seq: conv.Last(), Hash: conv.LastHash()}
	if resumeOffByOne && conv.Last() > 0 {
		position.Seq, position.Hash = conv.Skip(conv.Last()+1).GetLast(), nil
	}
	return position
}

// listedAll records that the gateway has listed all conversations of the user.
func (in *Inbox) listedAll() {
	in.listed = true
	in.env.connection.listed, in.env.connection.strays = true, nil
	in.reconnectForUnnamed()
}

// reconnectForUnnamed finds conversations whose membership has ended: a crowded connect frame did not name them, and the
// gateway did not list them. The next connect frame names them, so that the gateway sends their remaining events and
// their end. Before the client reconnects, it waits for the remaining events of the conversations named in the present
// frame.
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
