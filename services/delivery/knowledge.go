package delivery

import (
	"fmt"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/delivery/source"
)

// knowledge is what is known of the commands of one batch from earlier tries. It grows while the batch is tried: the store
// names duplicates, and commands that it rejects are poisoned.
type knowledge struct {
	// firsts are the events of commands that were committed before.
	firsts map[source.CommandKey]*conversationv1.Event
	// condemned are the reasons why commands become dead letters, by stream sequence.
	condemned map[uint64]string
	// looked are the commands that the store was asked about.
	looked map[source.CommandKey]struct{}
}

func newKnowledge() *knowledge {
	return &knowledge{
		firsts:    map[source.CommandKey]*conversationv1.Event{},
		condemned: map[uint64]string{},
		looked:    map[source.CommandKey]struct{}{},
	}
}

// learn notes the commands of a batch that were committed before: duplicates are by index of its events.
func (k *knowledge) learn(events []*conversationv1.Event, duplicates []*historyv1.Duplicate) error {
	for _, d := range duplicates {
		if int(d.GetIndex()) >= len(events) || d.GetFirst() == nil {
			return fmt.Errorf("the store named duplicate %d of %d events", d.GetIndex(), len(events))
		}
		k.firsts[source.KeyOfEvent(events[d.GetIndex()])] = d.GetFirst()
	}
	return nil
}
