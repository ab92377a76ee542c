package inbox

import (
	"github.com/runnelhq/runnel/pkg/client/internal/stream"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
)

// suspicion is a search for the last event that the client and the server have in common.
type suspicion struct {
	// reason is what is wrong with the log if it is no fork; nil when nothing is.
	reason error
	// search is nil while the conversation waits for its turn.
	search *stream.Search
}

// receiveForked takes the gateway's word that a log went back: nothing more of that conversation is pushed on this connection,
// whatever history says.
func (in *Inbox) receiveForked(forked *clientv1.Forked) {
	in.connection.reconnect = true
	if conv := in.conversations[forked.GetConversationId()]; conv != nil && !conv.gone {
		in.suspect(conv, nil)
	}
	in.reconnectIfKnown()
}

// suspect begins to ask history whether the server's log of a conversation is the one that the client has. If it is, and reason
// is not nil, the log contradicts itself.
func (in *Inbox) suspect(conv *Conversation, reason error) {
	if conv.suspicion != nil {
		if conv.suspicion.reason == nil {
			conv.suspicion.reason = reason
		}
		return
	}
	conv.suspicion = &suspicion{reason: reason}
	conv.DropHeld()
	delete(in.catchingUp, conv)
	in.searches.wait(conv)
	in.searchMore()
}

// searchMore gives conversations their turn to be searched.
func (in *Inbox) searchMore() {
	for conv := in.searches.next(); conv != nil; conv = in.searches.next() {
		if !conv.gone && conv.suspicion != nil {
			in.searches.running++
			conv.suspicion.search = conv.Search()
			in.compareNext(conv)
		}
	}
}

// compareNext reads the event that a search looks at next.
func (in *Inbox) compareNext(conv *Conversation) {
	search := conv.suspicion.search
	after := max(search.Seq(), 1) - 1
	in.cfg.Server.ReadPage(PageRead{
		ConversationID: conv.ID(), Limit: 1,
		After: func() uint64 { return after },
		Done: func(page *clientv1.Page, err error) {
			switch {
			case in.closed:
			case conv.gone:
				in.endSearch(conv)
			case err != nil:
				// Not a member any more, say: the server tells what becomes of it.
				in.cfg.Log.Warn("could not compare a conversation with the server", "conversation_id", conv.ID(), "error", err)
				in.clear(conv)
			default:
				in.receiveCompared(conv, search, page)
			}
		},
	})
}

// receiveCompared takes the page that a search asked for.
func (in *Inbox) receiveCompared(conv *Conversation, search *stream.Search, page *clientv1.Page) {
	switch verdict, common := search.Compare(page, in.cfg.Commands.Newest(conv.ID())); verdict {
	case stream.Same:
		in.clear(conv)
	case stream.Forked:
		in.rewind(conv, common.Seq, common.Hash)
	default:
		in.compareNext(conv)
	}
}

// clear ends a search that found no fork.
func (in *Inbox) clear(conv *Conversation) {
	reason := conv.suspicion.reason
	in.endSearch(conv)
	switch {
	case conv.gone || conv.broken:
	case reason != nil:
		in.breakOff(conv, reason)
	case conv.Behind():
		in.fill(conv, conv.Head())
	}
}

// endSearch ends a search, if there is one.
func (in *Inbox) endSearch(conv *Conversation) {
	if conv.suspicion != nil && conv.suspicion.search != nil {
		in.searches.running--
	}
	conv.suspicion = nil
	in.searchMore()
	in.reconnectIfKnown()
}

// reconnectIfKnown ends a connection on which conversations are not pushed from where the client is now, once that is known.
func (in *Inbox) reconnectIfKnown() {
	if in.connection != nil && in.connection.reconnect && in.searches.running == 0 {
		in.cfg.Reconnect()
	}
}

// rewind goes back to an event that the client and the server have in common. The hash is nil if it is not known.
func (in *Inbox) rewind(conv *Conversation, to uint64, hash []byte) {
	in.stats.Forks++
	from := conv.Last()
	conv.Rewind(to, hash)
	conv.delivered = min(conv.delivered, to)
	conv.read, conv.unsentRead = min(conv.read, to), false
	conv.stuck = 0
	conv.doubted, conv.broken = false, false
	conv.receipt = 0 // receipts of the new branch may have lower versions
	in.cfg.Forked(conv, from, hash)
	if in.connection != nil {
		in.connection.reconnect = true
	}
	in.endSearch(conv)
}
