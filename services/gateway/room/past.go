package room

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/gateway/metrics"
	"github.com/runnelhq/runnel/services/gateway/page"
	"github.com/runnelhq/runnel/services/gateway/stretch"
)

// Past reads a user's memberships in one conversation, including ended ones, and sends their events to a client. Package
// stretch decides what is sent.
type Past struct {
	hub            *Hub
	to             *Listener
	conversationID ids.Conversation
	// sinceMs is the time before which an event is old, Unix ms.
	sinceMs int64
	page    *historyv1.ReadResponse
}

// Past begins to read a conversation. Events before sinceMs, Unix ms, are old.
func (h *Hub) Past(to *Listener, conversationID ids.Conversation, sinceMs int64) *Past {
	return &Past{hub: h, to: to, conversationID: conversationID, sinceMs: sinceMs}
}

// Read reads the page after a seq. hash is the beginning of the hash of the client's event at that seq; 0 if the hash is
// not known.
func (p *Past) Read(ctx context.Context, after ids.Seq, hash uint64) (*stretch.Page, error) {
	begin := after
	if hash != 0 && after > 0 {
		begin-- // the client's last event is read as well, to compare its hash
	}
	p.hub.cfg.Metrics.Reads[metrics.ReadPast].Inc()
	read, err := p.hub.cfg.Log.Read(ctx, &historyv1.ReadRequest{
		ConversationId: string(p.conversationID), Viewer: string(p.to.User), After: uint64(begin), Limit: maxMessageEvents,
	})
	switch {
	case status.Code(err) == codes.NotFound:
		return &stretch.Page{}, nil
	case err != nil:
		return nil, fmt.Errorf("read a conversation as a member or former member: %w", err)
	}
	if err := page.CheckRising(p.conversationID, read, begin); err != nil {
		return nil, err
	}
	diverged := after > ids.Seq(read.GetHead()) || (begin < after && page.TakePosition(read, after, hash))
	page.Trim(read, p.hub.PageBytes(p.to.Events))
	p.page = read
	return &stretch.Page{
		Known: true, Member: read.GetMember(), Head: ids.Seq(read.GetHead()), Stretches: stretch.Of(p.events(), after), Diverged: diverged,
	}, nil
}

// events describes the events of the page for package stretch: which begin or end memberships of the user.
func (p *Past) events() []stretch.Event {
	events := make([]stretch.Event, 0, len(p.page.GetEvents()))
	for _, event := range p.page.GetEvents() {
		e := stretch.Event{Seq: ids.Seq(event.GetSeq()), Old: event.GetTimeMs() < p.sinceMs}
		joined, left := conversation.Memberships(event)
		for _, user := range joined {
			e.Begins = e.Begins || ids.User(user) == p.to.User
		}
		e.Ends = left == p.to.User
		events = append(events, e)
	}
	return events
}

// Queue queues the events of the page after a seq up to last, which must be of one membership. It returns the last event
// queued. If an event is missing, it returns a *page.HoleError. The caller flushes the link.
func (p *Past) Queue(after, last ids.Seq) (queued ids.Seq, err error) {
	var events []*conversationv1.Event
	for _, event := range p.page.GetEvents() {
		if ids.Seq(event.GetSeq()) > after && ids.Seq(event.GetSeq()) <= last {
			events = append(events, event)
		}
	}
	key := p.hub.cfg.Recorder.KeyOf(p.conversationID)
	queued, err = p.hub.queuePast(p.to, p.conversationID, key, &historyv1.ReadResponse{Events: events}, after, last)
	if err == nil && queued < last {
		err = &page.HoleError{ConversationID: p.conversationID, Seq: queued + 1}
	}
	return queued, err
}

// Hide queues a report that the user may not see a part of the log. The caller flushes the link.
func (p *Past) Hide(first, last ids.Seq) {
	p.to.Sender.QueueEvents(p.to.Answers.Frame(hiddenFrame(p.conversationID, first, last)), nil)
}
