package stream

import (
	"slices"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/frame"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// Checker verifies events. It reuses the memory of the last event, so that verifying allocates nothing. It is not safe
// for concurrent use.
type Checker struct {
	codec  frame.Codec
	skip   bool
	stored conversationv1.Event
}

// NewChecker makes a checker for events that were received in a codec. If skip is true, it verifies nothing.
func NewChecker(codec frame.Codec, skip bool) *Checker { return &Checker{codec: codec, skip: skip} }

// Verifies returns false if the checker verifies nothing.
func (c *Checker) Verifies() bool { return !c.skip }

// Check verifies that an event is the next one of a log, and returns the state of its content. The error is a
// *chain.Broken.
func (c *Checker) Check(v *chain.Verifier, event *clientv1.Event) (chain.Content, error) {
	if c.skip {
		if event.GetBody() == nil && len(event.GetSalt()) == 0 {
			return chain.Erased, nil
		}
		return chain.NotChecked, nil
	}
	frame.SetStored(&c.stored, event)
	event.Kind = c.stored.GetKind() // the verified number, also for a kind whose name this client does not know
	content, err := v.Next(&c.stored)
	switch {
	case err != nil:
		return content, err
	case content == chain.Erased:
		event.Body = nil
	case c.codec != frame.Proto && len(event.GetBodyBytes()) > 0:
		// A JSON event contains its body twice: as JSON and as encoded bytes. Only the bytes were verified, so the program
		// gets the body decoded from them. If this client cannot decode the bytes, the body has no action, as for an event
		// kind that this client does not know.
		if event.Body, err = conversation.DecodeBody(event.GetBodyBytes()); err != nil {
			event.Body = &conversationv1.Body{}
		}
	}
	return content, nil
}

// Covered returns true if hidden stretches cover everything from seq up to but not including end.
func Covered(hidden []*conversationv1.Range, seq, end uint64) bool {
	hidden = slices.Clone(hidden)
	slices.SortFunc(hidden, func(a, b *conversationv1.Range) int {
		if a.GetFirst() < b.GetFirst() {
			return -1
		}
		return 1
	})
	for _, h := range hidden {
		if h.GetFirst() <= seq {
			seq = max(seq, h.GetLast()+1)
		}
	}
	return seq >= end
}
