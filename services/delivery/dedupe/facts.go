// Package dedupe holds what is known about earlier commands: committed outcomes, commands that the store rejects, and
// refusals that answer later copies.
package dedupe

import (
	"fmt"

	"github.com/runnelhq/runnel/pkg/ids"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/delivery/source"
)

// Facts are the known facts about the commands of one batch, collected over all tries of the batch. Each try may add
// some: the store reports duplicates, and a command that the store rejects is poisoned.
type Facts struct {
	// Firsts contains, for each command that was committed before, its event.
	Firsts map[source.CommandKey]*conversationv1.Event
	// Poisoned contains the reasons why commands become dead letters, by stream sequence.
	Poisoned map[ids.Sequence]string
	// Asked contains the commands that were looked up in the store.
	Asked map[source.CommandKey]struct{}
}

// NewFacts makes the facts of a batch before its first try.
func NewFacts() *Facts {
	return &Facts{
		Firsts:   map[source.CommandKey]*conversationv1.Event{},
		Poisoned: map[ids.Sequence]string{},
		Asked:    map[source.CommandKey]struct{}{},
	}
}

// Learn records which commands of the batch were committed before; duplicates refer to indexes of its events.
func (f *Facts) Learn(events []*conversationv1.Event, duplicates []*historyv1.Duplicate) error {
	for _, d := range duplicates {
		if int(d.GetIndex()) >= len(events) || d.GetFirst() == nil {
			return fmt.Errorf("the store reported duplicate %d of %d events", d.GetIndex(), len(events))
		}
		f.Firsts[source.KeyOfEvent(events[d.GetIndex()])] = d.GetFirst()
	}
	return nil
}
