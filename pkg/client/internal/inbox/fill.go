package inbox

import (
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"

	"github.com/runnelhq/runnel/pkg/client/internal/stream"
)

const (
	// Events asked for at once.
	fillPage = 128
	// Pages in a row that bring nothing before the client believes that there is nothing.
	maxStuck = 5
)

// noteGap notes that events up to head are missing, and reads them.
func (in *Inbox) noteGap(conv *Conversation, head uint64) {
	if conv.settled() {
		in.stats.GapsSeen++
	}
	in.fill(conv, head)
}

// fill reads the events after Last up to head, when it is the conversation's turn and the program has room.
func (in *Inbox) fill(conv *Conversation, head uint64) {
	conv.Announce(head)
	if !conv.settled() {
		return
	}
	conv.filling = queued
	in.fills.wait(conv)
	in.readMore()
}

// readMore gives conversations their turn to read.
func (in *Inbox) readMore() {
	for in.cfg.Program.HasRoomForPage() {
		conv := in.fills.next()
		if conv == nil {
			return
		}
		if conv.filling = idle; !conv.stopped() {
			in.readPage(conv, 0)
		}
	}
}

// readPage asks for the page after Last, after some failures in a row.
func (in *Inbox) readPage(conv *Conversation, failures int) {
	conv.filling = reading
	in.fills.running++
	page := PageRead{
		ConversationID: conv.ID(), Limit: fillPage,
		After: conv.Last, // pushed events may close the gap while the question waits
		Done: func(page *clientv1.Page, err error) {
			conv.filling = idle
			in.fills.running--
			switch {
			case in.closed:
				return
			case err == nil:
				in.receivePage(conv, page)
			case !conv.gone:
				in.cfg.Log.Warn("could not read what is missing of a conversation", "conversation_id", conv.ID(), "error", err)
				in.giveUp(conv)
			}
			in.readMore()
		},
	}
	if failures > 0 {
		page.Wait = in.cfg.Backoff(failures - 1)
	}
	in.cfg.Server.ReadPage(page)
}

// receivePage takes a page of what is missing.
func (in *Inbox) receivePage(conv *Conversation, page *clientv1.Page) {
	if conv.stopped() {
		return
	}
	in.stats.PagesRead++
	before := conv.Last()
	seq, err := conv.Merge(page,
		func(came stream.Arrival) error { return in.take(conv, came) },
		func(to uint64) { in.skip(conv, to) })
	in.proceed(conv, seq, err, read)
	switch {
	case err != nil || !conv.settled() || !conv.Behind():
	case conv.Last() > before:
		conv.stuck = 0
		in.fill(conv, conv.Head())
	case conv.stuck < maxStuck:
		// What was announced must be there, so it comes a little later; unless the user may not see it any more.
		conv.stuck++
		in.readPage(conv, conv.stuck)
	default:
		in.giveUp(conv)
	}
}

// giveUp stops reading until there is a new reason to.
func (in *Inbox) giveUp(conv *Conversation) {
	conv.GiveUp()
	conv.stuck = 0
	delete(in.catchingUp, conv)
	in.leaveIf(conv, true)
}
