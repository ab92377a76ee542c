package deliverytest

import (
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// React is the body that adds or removes a reaction.
func React(target uint64, emoji string, remove bool) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_React{React: &conversationv1.React{Target: target, Emoji: emoji, Remove: remove}}}
}

// Erase is the body of an erasure.
func Erase(e *conversationv1.Erase) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_Erase{Erase: e}}
}

// Add is the body that adds members.
func Add(members ...string) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_AddMembers{AddMembers: &conversationv1.AddMembers{Members: members}}}
}
