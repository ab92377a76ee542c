package inbox

import (
	"github.com/runnelhq/runnel/pkg/client/internal/stream"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
)

// suspicion is a search for the last event that the client and the server have in common.
type suspicion struct {
	// reason is the error of the log if the log did not fork; nil if there is no error.
	reason error
	// search is nil while the conversation waits for its turn.
	search *stream.Search
}

// receiveForked handles the gateway's report that a log went back. The gateway pushes no more events of that conversation
// on this connection, whatever the comparison with history finds.
func (in *Inbox) receiveForked(forked *clientv1.Forked) {
	in.env.connection.reconnect = true
	if conv := in.conversations[forked.GetConversationId()]; conv != nil && !conv.gone {
		conv.suspect(nil)
	}
	in.env.reconnectIfKnown()
}

// suspect starts to compare the client's log of a conversation with history. If both are the same and reason is not nil,
// the log contradicts itself.
func (conv *Conversation) suspect(reason error) {
	if conv.suspicion != nil {
		if conv.suspicion.reason == nil {
			conv.suspicion.reason = reason
		}
		return
	}
	conv.suspicion = &suspicion{reason: reason}
	conv.DropHeld()
	delete(conv.env.catchingUp, conv)
	conv.env.searches.wait(conv)
	conv.env.searchMore()
}

// searchMore starts the searches of the waiting conversations whose turn it is.
func (e *env) searchMore() {
	for conv := e.searches.next(); conv != nil; conv = e.searches.next() {
		if !conv.gone && conv.suspicion != nil {
			e.searches.running++
			conv.suspicion.search = conv.Search()
			conv.compareNext()
		}
	}
}

// compareNext reads the next event that the search must compare.
func (conv *Conversation) compareNext() {
	search := conv.suspicion.search
	after := max(search.Seq(), 1) - 1
	conv.env.Server.ReadPage(PageRead{
		ConversationID: conv.ID(), Limit: 1,
		After: func() uint64 { return after },
		Done: func(page *clientv1.Page, err error) {
			switch {
			case conv.env.closed:
			case conv.gone:
				conv.endSearch()
			case err != nil:
				// This happens, for example, when the user is no longer a member: the server then reports the end of the
				// membership.
				conv.env.Log.Warn("could not check a conversation for a fork", "conversation_id", conv.ID(), "error", err)
				conv.clear()
			default:
				conv.receiveCompared(search, page)
			}
		},
	})
}

// receiveCompared handles the page that a search requested.
func (conv *Conversation) receiveCompared(search *stream.Search, page *clientv1.Page) {
	switch verdict, common := search.Compare(page, conv.env.Commands.Newest(conv.ID())); verdict {
	case stream.Same:
		conv.clear()
	case stream.Forked:
		conv.forkAt(common.Seq, common.Hash)
	default:
		conv.compareNext()
	}
}

// clear ends a search that found no fork.
func (conv *Conversation) clear() {
	reason := conv.suspicion.reason
	conv.endSearch()
	switch {
	case conv.gone || conv.broken:
	case reason != nil:
		conv.breakOff(reason)
	case conv.Behind():
		conv.fill(conv.Head())
	}
}

// endSearch ends the search if one is running.
func (conv *Conversation) endSearch() {
	if conv.suspicion != nil && conv.suspicion.search != nil {
		conv.env.searches.running--
	}
	conv.suspicion = nil
	conv.env.searchMore()
	conv.env.reconnectIfKnown()
}

// reconnectIfKnown ends a connection on which the gateway pushes conversations from outdated positions, as soon as the
// present positions are known.
func (e *env) reconnectIfKnown() {
	if e.connection != nil && e.connection.reconnect && e.searches.running == 0 {
		e.Reconnect()
	}
}

// forkAt moves the conversation back to the last event that the client and the server have in common. hash is nil if it
// is not known.
func (conv *Conversation) forkAt(to uint64, hash []byte) {
	conv.env.stats.Forks++
	from := conv.Last()
	conv.Rewind(to, hash)
	conv.delivered = min(conv.delivered, to)
	conv.read, conv.unsentRead = min(conv.read, to), false
	conv.emptyPages = 0
	conv.doubted, conv.broken = false, false
	conv.receipt = 0 // receipts of the new branch may have lower versions
	conv.env.Forked(conv, from, hash)
	if conv.env.connection != nil {
		conv.env.connection.reconnect = true
	}
	conv.endSearch()
}
