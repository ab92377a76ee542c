package conversation

import (
	"slices"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// Covers reports whether an erasure applies to an event of its conversation. The stores have the same condition in SQL.
func Covers(erased *historyv1.EraseEvents, event *conversationv1.Event) bool {
	subject := event.GetSeq()
	if erased.GetTargeting() {
		targets := TargetsOf(event).GetSeqs()
		if len(targets) == 0 {
			return false
		}
		subject = targets[0]
	}
	return event.GetSeq() < erased.GetBelow() && slices.Contains(erased.GetKinds(), event.GetKind()) &&
		(len(erased.GetSeqs()) == 0 || slices.Contains(erased.GetSeqs(), subject)) &&
		(erased.GetSender() == "" || erased.GetSender() == event.GetSender()) &&
		(erased.GetBeforeMs() == 0 || event.GetTimeMs() < erased.GetBeforeMs())
}

// HasErasure reports whether effects erase content.
func HasErasure(effects []*historyv1.Effect) bool {
	return slices.ContainsFunc(effects, func(e *historyv1.Effect) bool { return e.GetEraseEvents() != nil })
}
