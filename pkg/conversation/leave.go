package conversation

import (
	"maps"

	"github.com/runnelhq/runnel/pkg/ids"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// leaveKind removes the sender from a group.
type leaveKind struct{ none }

func (leaveKind) fold(next *State, o *occurrence) {
	next.Members = maps.Clone(next.Members)
	delete(next.Members, ids.User(o.event.GetSender()))
}

func (leaveKind) members(o *occurrence) (joined []string, left ids.User) {
	return nil, ids.User(o.event.GetSender())
}

func (leaveKind) effects(_ *State, o *occurrence) []*historyv1.Effect {
	return []*historyv1.Effect{end(ids.User(o.event.GetSender()))}
}
