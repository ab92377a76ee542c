package session

import (
	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/gateway/room"
	"github.com/runnelhq/runnel/services/gateway/stretch"
)

const (
	// maxRested is how many positions a session keeps of conversations whose membership has ended. A late notice of a membership
	// whose position was dropped makes the client receive that membership again.
	maxRested = 1000
	// maxEarly is how many notices a session keeps while it connects. If there are more, the list of conversations is read again.
	maxEarly = 1000
)

// place is what a session knows of one conversation. Package stretch decides what the client is told; catchUp carries it out
// while the state is reading, and the subscription serves the client while it is live.
type place struct {
	stretch.State
	subscription *room.Subscription // set while the state is live
	hash         uint64             // beginning of the hash of the client's event at its position; 0 if not known, or compared
}

// places are the conversations of a session. Guarded by the session's mu.
type places struct {
	// active are the conversations in which the client is subscribed, is being told something, or is on another branch. It is nil
	// before the session has connected and after it has ended.
	active map[ids.Conversation]*place
	// rested are the positions in conversations whose membership has ended and was told to its end.
	rested map[ids.Conversation]ids.Seq
}

// get returns the place of a conversation, which becomes active.
func (ps *places) get(conversationID ids.Conversation) *place {
	p := ps.active[conversationID]
	if p == nil {
		p = &place{State: stretch.Resting(ps.rested[conversationID])}
		delete(ps.rested, conversationID)
		ps.active[conversationID] = p
	}
	return p
}

// rest keeps only the position of a place that is resting.
func (ps *places) rest(conversationID ids.Conversation, p *place) {
	delete(ps.active, conversationID)
	if p.Position() == 0 {
		return
	}
	if ps.rested == nil {
		ps.rested = map[ids.Conversation]ids.Seq{}
	}
	if len(ps.rested) >= maxRested {
		for dropped := range ps.rested {
			delete(ps.rested, dropped)
			break
		}
	}
	ps.rested[conversationID] = p.Position()
}

// subscription returns the session's subscription to a conversation; nil if it has none.
func (s *Session) subscription(conversationID ids.Conversation) *room.Subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.places.active[conversationID]; p != nil {
		return p.subscription
	}
	return nil
}

func (s *Session) listSubscriptions() []*room.Subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	subscriptions := make([]*room.Subscription, 0, len(s.places.active))
	for _, p := range s.places.active {
		if p.subscription != nil {
			subscriptions = append(subscriptions, p.subscription)
		}
	}
	return subscriptions
}
