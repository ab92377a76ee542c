package inbox

import clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"

const (
	// Number of events requested in one page.
	fillPage = 128
	// Number of empty pages in a row after which the client stops reading.
	maxEmptyPages = 5
)

// noteGap records that events up to head are missing, and reads them.
func (conv *Conversation) noteGap(head uint64) {
	if conv.settled() {
		conv.env.stats.GapsSeen++
	}
	conv.fill(head)
}

// fill reads the events after Last up to head, when it is the conversation's turn and the program has room.
func (conv *Conversation) fill(head uint64) {
	conv.Announce(head)
	if !conv.settled() {
		return
	}
	conv.filling = queued
	conv.env.fills.wait(conv)
	conv.env.readMore()
}

// readMore starts reading for the waiting conversations whose turn it is.
func (e *env) readMore() {
	for e.Program.HasRoomForPage() {
		conv := e.fills.next()
		if conv == nil {
			return
		}
		if conv.filling = idle; !conv.stopped() {
			conv.readPage(0)
		}
	}
}

// readPage requests the page after Last. failures is the number of consecutive failed requests before this one.
func (conv *Conversation) readPage(failures int) {
	conv.filling = reading
	conv.env.fills.running++
	page := PageRead{
		ConversationID: conv.ID(), Limit: min(fillPage, conv.env.limits.Page),
		After: conv.Last, // computed when the request is sent: pushed events may have closed the gap by then
		Done: func(page *clientv1.Page, err error) {
			conv.filling = idle
			conv.env.fills.running--
			switch {
			case conv.env.closed:
				return
			case err == nil:
				conv.receivePage(page)
			case !conv.gone:
				conv.env.Log.Warn("could not read missing events", "conversation_id", conv.ID(), "error", err)
				conv.stopReading()
			}
			conv.env.readMore()
		},
	}
	if failures > 0 {
		page.Wait = conv.env.Backoff(failures - 1)
	}
	conv.env.Server.ReadPage(page)
}

// receivePage handles a page of missing events.
func (conv *Conversation) receivePage(page *clientv1.Page) {
	if conv.stopped() {
		return
	}
	conv.env.stats.PagesRead++
	before := conv.Last()
	seq, err := conv.Merge(page, conv.handEvent, conv.handHidden)
	conv.proceed(seq, err, read)
	switch {
	case err != nil || !conv.settled() || !conv.Behind():
	case conv.Last() > before:
		conv.emptyPages = 0
		conv.fill(conv.Head())
	case conv.emptyPages < maxEmptyPages:
		// An announced event exists, so it becomes available a little later, unless the user may no longer see it.
		conv.emptyPages++
		conv.readPage(conv.emptyPages)
	default:
		conv.stopReading()
	}
}

// stopReading stops reading until a later frame announces more events.
func (conv *Conversation) stopReading() {
	conv.GiveUp()
	conv.emptyPages = 0
	delete(conv.env.catchingUp, conv)
	conv.leaveIf(true)
}
