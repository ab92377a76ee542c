package chain

import conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

// IsStructure reports whether this build knows that events of a kind cannot be erased: their bodies hold ids and seqs only. Without
// its body such an event was tampered with. Of a newer kind that is not known; it counts as content. Package conversation, which has
// the table of kinds, checks in a test that this list is complete.
func IsStructure(kind conversationv1.EventKind) bool {
	switch kind {
	case conversationv1.EventKind_EVENT_KIND_MEMBERS_ADDED, conversationv1.EventKind_EVENT_KIND_MEMBER_REMOVED, conversationv1.EventKind_EVENT_KIND_MEMBER_LEFT,
		conversationv1.EventKind_EVENT_KIND_DELETED, conversationv1.EventKind_EVENT_KIND_ERASED:
		return true
	default:
		return false
	}
}
