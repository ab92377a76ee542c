package conversation

import (
	"maps"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// leaveKind removes the sender from a group.
type leaveKind struct{ none }

func (leaveKind) fold(next *State, o *occurrence) {
	next.Members = maps.Clone(next.Members)
	delete(next.Members, o.event.GetSender())
}

func (leaveKind) members(o *occurrence) (joined []UserID, left UserID) {
	return nil, o.event.GetSender()
}

func (leaveKind) effects(_ *State, o *occurrence) []*historyv1.Effect {
	return []*historyv1.Effect{end(o.event.GetSender())}
}
