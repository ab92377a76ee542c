package client

import (
	"errors"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/client/internal/request"
	"github.com/runnelhq/runnel/pkg/protocol"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// stream is how far the client has one conversation. last only moves from an event to the next one, or over a stretch
// that the gateway says is hidden; everything else leads to a fill.
type stream struct {
	id       string
	verifier chain.Verifier
	// last is the newest seq that is on its way to the callbacks, delivered the newest one that they returned from.
	last, delivered uint64
	// read is the newest seq that MarkRead named; readOwed that it was not said yet.
	read     uint64
	readOwed bool
	// owed says that an acknowledgement is due.
	owed bool
	// head is the newest seq that is known to exist, as far as it matters for filling.
	head uint64
	// held are events beyond a gap, without a hole among themselves.
	held []arrival
	// queued says that it waits to be filled, filling that a page is asked for, and stuck how many pages in a row brought nothing.
	queued, filling bool
	stuck           int
	// doubted says that an event did not verify and is read once more; broken that this did not help.
	doubted, broken bool
	// search is the search for the last event in common with the server, nil while nothing is wrong; see fork.go.
	search *search
	// trail is what the client had; joined the first seq that the user may see, as far as it is known.
	trail  trail
	joined uint64
	// branch counts how often the log went back.
	branch int
	// followed says that this connection pushes what comes after last.
	followed bool
	// met is the connection whose gateway last named it as one of the user's. first says that the next connect frame has room for
	// it before others; see settle.
	met   *session
	first bool
	// announced says that OnAttached was told.
	announced bool
	// leaving says that the membership ended with the event leaveAt; gone that this is all over.
	leaving, gone bool
	leaveAt       uint64
	// receipt is the version of the newest receipt.
	receipt int64
}

// maxHeld is how many events beyond a gap are kept while the gap is filled. Those that come after them are read, too.
const maxHeld = 256

// source is where the client learns of a conversation.
type source int

const (
	fromConnected source = iota
	fromAttached
	fromList
)

// way is how an event comes.
type way int

const (
	pushedEvent way = iota
	readEvent
)

var errNoRoom = errors.New("no room for more events")

// restore takes the positions of an earlier life.
func (c *Client) restore(positions map[string]Position) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, position := range positions {
		if position.Seq > protocol.MaxSeq {
			c.cfg.Log.Warn("left out a saved position that no log can reach", "conversation_id", id, "seq", position.Seq)
			continue
		}
		conv := &stream{id: id, last: position.Seq, delivered: position.Seq}
		if len(position.Hash) == chain.Size {
			conv.verifier = *chain.From(position.Seq, position.Hash)
			conv.trail.add(position.Seq, position.Hash)
		}
		c.conversations[id] = conv
	}
}

// meet takes what the gateway says of a conversation of the user. The lock is held, as in all that follows.
func (c *Client) meet(s *session, info *clientv1.Conversation, from source) {
	conv := c.conversations[info.GetConversationId()]
	known := conv != nil
	// A conversation that the server had lost was created again, by its creator: its log begins anew.
	recreated := !known && c.record.lost(info.GetConversationId())
	if !known {
		base := c.base(s, info, from)
		if recreated {
			base = beforeJoin(info)
		}
		conv = &stream{id: info.GetConversationId(), last: base, followed: from != fromList && !s.crowded}
		c.conversations[conv.id] = conv
		c.callbacks.Begins(conv.id, base)
	}
	conv.met, conv.first = s, false
	if conv.joined == 0 {
		conv.joined = info.GetJoinedSeq()
	}
	if conv.leaving && info.GetJoinedSeq() > conv.leaveAt {
		// A member again before everything of the membership before was handed over: it goes on.
		conv.leaving, conv.leaveAt = false, 0
	}
	if !conv.announced {
		conv.announced = true
		c.callbacks.Attached(info)
	}
	switch {
	case recreated:
		c.rewind(conv, conv.last, nil)
	case conv.search != nil:
		conv.head = max(conv.head, info.GetHead())
	case known && info.GetHead() < conv.last,
		(from == fromConnected || (from == fromAttached && !known)) && info.GetHead() < c.record.newest(conv.id):
		// What was pushed or committed meanwhile may be newer than this, so history decides.
		conv.head = max(conv.head, info.GetHead())
		c.suspect(conv, nil)
	case info.GetHead() > conv.last && conv.followed:
		c.catchingUp[conv] = catchUp{to: info.GetHead(), was: conv.last}
	case info.GetHead() > conv.last:
		c.fill(conv, info.GetHead())
	}
	// What the last connection acknowledged may have been lost with it.
	if info.GetCursor().GetReadSeq() < conv.read {
		conv.readOwed = true
		c.owe(conv)
	}
	if info.GetCursor().GetDeliveredSeq() < conv.delivered {
		c.owe(conv)
	}
}

// base is the seq after which a conversation begins that the client knows nothing of.
func (c *Client) base(s *session, info *clientv1.Conversation, from source) uint64 {
	switch {
	case from == fromAttached || s.start == clientv1.Start_START_FIRST:
		// What is attached was joined just now.
		return beforeJoin(info)
	case s.start == clientv1.Start_START_DELIVERED:
		return max(beforeJoin(info), info.GetCursor().GetDeliveredSeq())
	}
	// The head of a list is later than that at connect; what was pushed meanwhile shows it.
	if first := s.strays[info.GetConversationId()]; from == fromList && first > 0 {
		return min(info.GetHead(), first-1)
	}
	return info.GetHead()
}

// beforeJoin is the seq before the first one that the user may see.
func beforeJoin(info *clientv1.Conversation) uint64 { return max(info.GetJoinedSeq(), 1) - 1 }

// pushed takes an event that the gateway pushed.
func (c *Client) pushed(came arrival) {
	event := came.event
	conv := c.conversations[event.GetConversationId()]
	switch seq := event.GetSeq(); {
	case conv == nil:
		c.stray(event)
	case conv.broken:
	case conv.search != nil:
		conv.head = max(conv.head, seq)
	case seq <= conv.last:
		if had := conv.trail.at(seq); had != nil && !had.is(event.GetHash()) {
			c.suspect(conv, nil)
			return
		}
		c.stats.RepeatsDropped++
		if seq <= conv.delivered {
			// The gateway does not know that it was received.
			c.owe(conv)
		}
	case seq == conv.last+1:
		c.proceed(conv, seq, c.take(conv, came), pushedEvent)
	default:
		c.missing(conv, seq)
		if n := len(conv.held); n < maxHeld && c.callbacks.HasRoom() && (n == 0 || conv.held[n-1].event.GetSeq()+1 == seq) {
			conv.held = append(conv.held, came)
		}
	}
}

// stray takes an event of a conversation that the client does not know. It may be one that is about to be listed and that will be
// read from there.
func (c *Client) stray(event *clientv1.Event) {
	if s := c.session; !c.listed {
		if s.strays == nil {
			s.strays = map[string]uint64{}
		}
		if _, known := s.strays[event.GetConversationId()]; !known {
			s.strays[event.GetConversationId()] = event.GetSeq()
		}
	}
	c.stats.StraysDropped++
}

// hidden takes a stretch that the user may not see.
func (c *Client) hidden(hidden *clientv1.Hidden) {
	conv := c.conversations[hidden.GetConversationId()]
	switch {
	case conv == nil || conv.broken || hidden.GetLast() <= conv.last:
	case conv.search != nil:
		conv.head = max(conv.head, hidden.GetLast())
	case hidden.GetFirst() <= conv.last+1:
		c.skip(conv, hidden.GetLast())
		c.proceed(conv, conv.last, nil, pushedEvent)
	default:
		c.missing(conv, hidden.GetLast())
	}
}

// take hands the event after last to the callbacks, if it verifies and there is room.
func (c *Client) take(conv *stream, came arrival) error {
	event := came.event
	if !c.callbacks.HasRoom() {
		c.stats.EventsPutOff++
		return errNoRoom
	}
	if event.GetSeq() != conv.last+1 {
		return &chain.Broken{ConversationID: conv.id, Seq: event.GetSeq(), Reason: "the log has a hole before it"}
	}
	if event.GetConversationId() != conv.id {
		return &chain.Broken{ConversationID: conv.id, Seq: event.GetSeq(), Reason: "it belongs to another conversation"}
	}
	content, err := c.checker.check(&conv.verifier, event)
	if err != nil {
		return err
	}
	if len(conv.trail.marks) == 0 && event.GetSeq() > 1 {
		conv.trail.add(event.GetSeq()-1, event.GetPrevHash())
	}
	conv.trail.add(event.GetSeq(), event.GetHash())
	conv.last, conv.doubted = event.GetSeq(), false
	c.stats.Events++
	c.callbacks.Event(conv, conv.branch, came, content)
	return nil
}

// skip moves over a hidden stretch that begins at last + 1 or before.
func (c *Client) skip(conv *stream, to uint64) {
	hidden := &clientv1.Hidden{ConversationId: conv.id, First: conv.last + 1, Last: to}
	conv.last = to
	conv.verifier.Skip()
	c.stats.Hidden++
	c.callbacks.Hidden(conv, conv.branch, hidden)
}

// proceed goes on after an attempt to take the event seq: with the held events, with a fill, or not at all.
func (c *Client) proceed(conv *stream, seq uint64, err error, came way) {
	for err == nil && len(conv.held) > 0 && conv.held[0].event.GetSeq() <= conv.last+1 {
		next := conv.held[0]
		came = pushedEvent
		if seq = next.event.GetSeq(); seq > conv.last {
			err = c.take(conv, next)
		}
		conv.held = conv.held[1:]
	}
	if len(conv.held) == 0 {
		conv.held = nil
	}
	switch {
	case errors.Is(err, errNoRoom):
		conv.held = nil
		c.fill(conv, seq)
	case err != nil:
		c.doubt(conv, seq, err, came)
	case conv.last >= conv.head:
		conv.stuck = 0
		c.leaveIf(conv, conv.last >= conv.leaveAt)
	}
}

// doubt reacts to an event that does not verify: it is read from history, once more if it was. If that does not help, either the
// server is on another branch of the log, or the conversation ends here.
func (c *Client) doubt(conv *stream, seq uint64, err error, came way) {
	c.stats.ChainBreaks++
	conv.held = nil
	if !conv.doubted || came == pushedEvent {
		conv.doubted = true
		c.fill(conv, seq)
		return
	}
	c.suspect(conv, err)
}

// breakOff ends a conversation whose log contradicts itself.
func (c *Client) breakOff(conv *stream, err error) {
	conv.broken = true
	c.cfg.Log.Error("the log of a conversation contradicts itself", "error", err)
	c.callbacks.Broken(err)
	c.leaveIf(conv, true)
}

// compare finds what was lost without anything coming after it, by the heads of a heartbeat.
func (c *Client) compare(heads []*clientv1.Position) {
	for _, head := range heads {
		conv := c.conversations[head.GetConversationId()]
		if conv == nil || head.GetSeq() <= conv.last {
			continue
		}
		if conv.search != nil {
			conv.head = max(conv.head, head.GetSeq())
			continue
		}
		if catch, coming := c.catchingUp[conv]; coming {
			c.catchingUp[conv] = catchUp{to: max(catch.to, head.GetSeq()), was: catch.was}
			continue
		}
		c.missing(conv, head.GetSeq())
	}
	// A backlog may still be on its way after connecting; it counts as lost when it did not move between two heartbeats.
	for conv, catch := range c.catchingUp {
		switch {
		case conv.last >= catch.to || conv.gone:
			delete(c.catchingUp, conv)
		case conv.last == catch.was && !c.session.firstBeat:
			delete(c.catchingUp, conv)
			c.missing(conv, catch.to)
		default:
			catch.was = conv.last
			c.catchingUp[conv] = catch
		}
	}
	c.session.firstBeat = false
}

// catchUp is how far a conversation's backlog reached at the last heartbeat, and how far it goes.
type catchUp struct{ to, was uint64 }

// detach takes the end of the user's membership with the event last; it shows after that event was handed over.
func (c *Client) detach(conv *stream, last uint64) {
	conv.leaving, conv.leaveAt = true, last
	c.leaveIf(conv, conv.broken || conv.last >= last)
	if !conv.gone {
		c.fill(conv, last)
	}
}

// leaveIf forgets a conversation whose membership has ended, once everything of it was handed over.
func (c *Client) leaveIf(conv *stream, over bool) {
	if !conv.leaving || !over || conv.gone {
		return
	}
	conv.gone = true
	delete(c.conversations, conv.id)
	delete(c.catchingUp, conv)
	c.callbacks.Detached(&clientv1.Detached{ConversationId: conv.id, Last: conv.leaveAt})
}

// listRest goes through the conversations that Connected had no room for.
//
// They matter too much to give up on the first refusal: without them the client does not know what it lacks. So it asks, more and
// more rarely, for as long as the connection lasts; the next one begins anew.
func (c *Client) listRest(s *session, after string, refusals int) {
	r := &request.Request{
		Frame: &clientv1.ClientFrame{Request: &clientv1.ClientFrame_ListConversations{
			ListConversations: &clientv1.ListConversations{After: after, Limit: protocol.MaxPage},
		}},
		OneConnection: true,
		Done: func(answer *clientv1.ServerFrame, err error) {
			if err == nil && answer.GetConversations() == nil {
				err = errAnswer
			}
			switch {
			case err != nil && c.session != s:
				return
			case err != nil:
				c.cfg.Log.Warn("could not list all conversations", "error", err)
				c.listRest(s, after, refusals+1)
				return
			}
			list := answer.GetConversations().GetConversations()
			for _, info := range list {
				c.meet(s, info, fromList)
			}
			if answer.GetConversations().GetMore() && len(list) > 0 {
				c.listRest(s, list[len(list)-1].GetConversationId(), 0)
			} else {
				c.listedAll(s)
			}
		},
	}
	if refusals == 0 {
		c.requests.Ask(r)
	} else {
		c.requests.AskAfter(r, c.cfg.Backoff.wait(refusals-1))
	}
}

// receipt takes a receipt. Only the newest one of a conversation waits for the callback.
func (c *Client) receipt(receipt *conversationv1.Receipt) {
	conv := c.conversations[receipt.GetConversationId()]
	if conv == nil || receipt.GetVersion() <= conv.receipt {
		return
	}
	conv.receipt = receipt.GetVersion()
	c.callbacks.Receipt(receipt)
}
