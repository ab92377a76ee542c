package chain

import conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

// IsStructure reports whether this build knows that events of a kind cannot be erased, because their bodies contain only
// ids and seqs. If such an event has no body, it was tampered with. A kind that this build does not know counts as
// content. A test of package conversation, which has the table of kinds, checks that this list is complete.
func IsStructure(kind conversationv1.EventKind) bool {
	switch kind {
	case conversationv1.EventKind_EVENT_KIND_MEMBERS_ADDED, conversationv1.EventKind_EVENT_KIND_MEMBER_REMOVED, conversationv1.EventKind_EVENT_KIND_MEMBER_LEFT,
		conversationv1.EventKind_EVENT_KIND_DELETED, conversationv1.EventKind_EVENT_KIND_ERASED:
		return true
	default:
		return false
	}
}
