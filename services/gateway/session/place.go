package session

import (
	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/gateway/room"
	"github.com/runnelhq/runnel/services/gateway/stretch"
)

const (
	// maxRested is the number of positions that a session keeps for conversations whose membership has ended. If a
	// position was dropped, a late notice of that membership makes the client receive the membership again.
	maxRested = 1000
	// maxEarly is the number of notices that a session keeps while it connects. If more arrive, the list of conversations
	// is read again.
	maxEarly = 1000
)

// place is the state of one conversation in a session. Package stretch decides what the client is sent. catchUp sends it
// while the state is reading; the subscription does while the state is live.
type place struct {
	stretch.State
	subscription *room.Subscription // set while the state is live
	hash         uint64             // beginning of the hash of the client's event at its position; 0 if it is not known, or was already compared
}

// places are the conversations of a session. Guarded by the session's mu.
type places struct {
	// active contains the conversations in which the client is subscribed, is catching up, or is on another branch. It is
	// nil before the session has connected and after it has ended.
	active map[ids.Conversation]*place
	// rested contains the client's position in each conversation whose membership has ended, once the client has all of
	// that membership.
	rested map[ids.Conversation]ids.Seq
}

// get returns the place of a conversation and makes the conversation active.
func (ps *places) get(conversationID ids.Conversation) *place {
	p := ps.active[conversationID]
	if p == nil {
		p = &place{State: stretch.Resting(ps.rested[conversationID])}
		delete(ps.rested, conversationID)
		ps.active[conversationID] = p
	}
	return p
}

// rest removes a resting place and keeps only its position.
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
