package session

import (
	"context"
	"errors"
	"time"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/gateway/backoff"
	"github.com/runnelhq/runnel/services/gateway/requests"
	"github.com/runnelhq/runnel/services/gateway/room"
	"github.com/runnelhq/runnel/services/gateway/stretch"
)

// oldSlack allows for clock differences: a membership that began up to this time before the session may still be reported
// by a notice. The event has the broker's time, the session has this gateway's time.
const oldSlack = 2 * time.Second

// errPlaceGone means that the session has ended.
var errPlaceGone = errors.New("the session has ended")

// catchUp sends the client the events of one conversation that it does not have, step by step as package stretch decides.
// It ends when the client has all events, or is subscribed. If history fails, it tries again; events sent before are not
// sent again.
func (s *Session) catchUp(conversationID ids.Conversation, p *place) {
	c := &catchingUp{
		Session: s, conversationID: conversationID, place: p,
		past: s.all.deps.Rooms.Past(&s.listener, conversationID, s.since.Add(-oldSlack).UnixMilli()),
	}
	for wait := time.Duration(0); s.link.WaitForRoom(); {
		done, err := c.step()
		switch {
		case errors.Is(err, errPlaceGone), err != nil && s.hasEnded():
			return
		case err != nil:
			s.all.deps.Rooms.ReadFailed(err, "a client could not be told of a membership yet", "connection", s.id, "conversation", conversationID)
			c.view, c.summary = stretch.View{}, nil
			wait = backoff.Wait(s.link.Done(), wait)
		case done:
			s.link.Flush()
			return
		default:
			wait = 0
		}
	}
}

// catchingUp is the state of one call of catchUp.
type catchingUp struct {
	*Session

	conversationID ids.Conversation
	place          *place
	past           *room.Past
	view           stretch.View
	summary        *historyv1.Summary // the present membership, if view contains a present membership
}

// step carries out one step. It returns true when no step is left. State and frames change together, under the session's
// lock, so that the frames on the link have the order of the states.
func (c *catchingUp) step() (done bool, err error) {
	c.mu.Lock()
	p := c.place
	if c.places.active[c.conversationID] != p {
		c.mu.Unlock()
		return true, errPlaceGone
	}
	step := p.Next(c.view)
	switch step.Do {
	case stretch.LookUp, stretch.Read:
		after, hash := p.After(), p.hash
		c.mu.Unlock()
		if step.Do == stretch.Read {
			return false, c.read(after, hash)
		}
		return false, c.lookUp()
	case stretch.Subscribe:
		c.subscribe(step)
		return true, nil
	case stretch.Diverge:
		head, seq := c.view.Page.Head, p.Position()
		c.mu.Unlock()
		c.Forked(nil, c.conversationID, head, seq)
		return true, nil
	case stretch.Tell:
		step.Last, err = c.past.Queue(p.Position(), step.Last)
	case stretch.Hide:
		c.past.Hide(step.From, step.Last)
	case stretch.Attach:
		c.link.Queue(c.encodeAttached(&clientv1.Conversation{
			ConversationId: string(c.conversationID), Kind: conversation.KindOfID(c.conversationID), JoinedSeq: uint64(step.From), Head: uint64(step.Last),
		}))
	case stretch.Detach:
		c.link.Queue(c.encodeDetached(c.conversationID, step.Last))
	case stretch.Again, stretch.Forget:
		c.view, c.summary = stretch.View{}, nil
	case stretch.Rest:
		done = true
	case stretch.Begin, stretch.Skip:
	}
	if p.Done(step); done {
		c.places.rest(c.conversationID, p)
	}
	c.mu.Unlock()
	return done, err
}

// subscribe subscribes to the present membership. The session is locked; subscribe unlocks it.
func (c *catchingUp) subscribe(step stretch.Step) {
	subscription := c.listener.Subscribe(c.summary, step.Last, nil)
	if !c.place.IsOpen() {
		c.link.Queue(c.encodeAttached(requests.Conversation(c.summary)))
	}
	c.place.Done(step)
	c.place.subscription = subscription
	c.mu.Unlock()
	c.link.Flush()
	rooms := c.all.deps.Rooms
	rooms.Enter(map[ids.Conversation]*room.Subscription{c.conversationID: subscription}, []*historyv1.Summary{c.summary})
	c.mu.Lock()
	ended := c.places.active == nil
	c.mu.Unlock()
	if ended {
		rooms.Leave(subscription) // the session ended meanwhile, before this subscription was visible to it
	}
}

// read reads the events after a position. It holds a turn only while it reads: a client that is slow to receive must not
// delay other clients.
func (c *catchingUp) read(after ids.Seq, hash uint64) error {
	return c.inTurn(func(ctx context.Context) error {
		page, err := c.past.Read(ctx, after, hash)
		if err != nil {
			return err
		}
		c.place.hash = 0 // the client's position is compared only once
		c.view, c.summary = stretch.View{Page: page}, nil
		return nil
	})
}

// lookUp looks up the present membership, and the earliest one that has ended.
func (c *catchingUp) lookUp() error {
	found, err := c.present(c.conversationID)
	if err != nil {
		return err
	}
	c.summary, c.view.Listed, c.view.Present, c.view.Ended = found.summary, true, ids.Seq(found.summary.GetJoinedSeq()), found.ended
	return nil
}

func (c *catchingUp) inTurn(do func(ctx context.Context) error) error {
	if !c.all.takeTurn(c.Session) {
		return errPlaceGone
	}
	defer c.all.returnTurn(c.Session)
	ctx, cancel := context.WithTimeout(c.all.ctx, c.all.deps.Config.HistoryTimeout)
	defer cancel()
	return do(ctx)
}

func (s *Session) encodeAttached(c *clientv1.Conversation) []byte {
	return s.encode(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Attached{Attached: &clientv1.Attached{Conversation: c}}})
}

func (s *Session) encodeDetached(conversationID ids.Conversation, last ids.Seq) []byte {
	return s.encode(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Detached{Detached: &clientv1.Detached{
		ConversationId: string(conversationID), Last: uint64(last),
	}}})
}
