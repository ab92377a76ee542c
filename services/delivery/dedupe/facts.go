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

// Facts are what is known about the commands of one batch from earlier tries. They grow while the batch is tried: the store
// reports duplicates, and commands that it rejects are poisoned.
type Facts struct {
	// Firsts are the events of commands that were committed before.
	Firsts map[source.CommandKey]*conversationv1.Event
	// Poisoned are the reasons why commands become dead letters, by stream sequence.
	Poisoned map[ids.Sequence]string
	// Asked are the commands that were looked up in the store.
	Asked map[source.CommandKey]struct{}
}

// NewFacts makes the facts of a batch that was not tried yet.
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
