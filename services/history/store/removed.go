package store

import (
	"github.com/runnelhq/runnel/pkg/conversation"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// Removals adds the removed users to the states of conversations.
type Removals struct {
	states map[string]*historyv1.ConversationState
	// room is the number of users that still fit into the answer.
	room int
}

// NewRemovals begins with states that have this many members in total.
func NewRemovals(states []*historyv1.ConversationState, members int) *Removals {
	r := &Removals{states: make(map[string]*historyv1.ConversationState, len(states)), room: MaxStateMembers - members}
	for _, state := range states {
		r.states[state.GetConversationId()] = state
	}
	return r
}

// Add adds one removal. It must be called with the newest removal of a conversation first; removals beyond
// conversation.MaxRemoved are left out. It returns ErrTooLarge under the same condition as Conversations.
func (r *Removals) Add(conversationID string, removal *historyv1.Removal) error {
	state := r.states[conversationID]
	if state == nil || len(state.GetRemoved()) == conversation.MaxRemoved {
		return nil // the conversation was created after the states were read, or has too many removals
	}
	if r.room--; r.room < 0 && len(r.states) > 1 {
		return ErrTooLarge
	}
	state.Removed = append(state.Removed, removal)
	return nil
}
