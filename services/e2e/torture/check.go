package torture

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
)

// Check checks all invariants that can be checked after a run. I9 and I10 are measured during the run.
func Check(h History, c Content) []Violation {
	var found []Violation
	for _, check := range []func(History, Content) []Violation{
		CheckStoredOnce, CheckNoHoles, CheckSendOrder, CheckNothingInvented, CheckKeys, CheckViews, CheckRepeats, CheckMembership, CheckReplay, CheckStays, CheckFeed, CheckRefusals,
		CheckChain, CheckPositions, CheckWatermarks,
	} {
		found = append(found, check(h, c)...)
	}
	return found
}

// CheckSurvival checks the conditions that must hold whenever the store can be read, whatever happened to it. Every
// acknowledged command exists once; every log is complete, and so are its views.
func CheckSurvival(h History, c Content) (found []Violation) {
	for _, check := range []func(History, Content) []Violation{CheckStoredOnce, CheckNoHoles, CheckKeys, CheckReplay, CheckStays, CheckChain, CheckPositions} {
		found = append(found, check(h, c)...)
	}
	return found
}

func keyOf(event *conversationv1.Event) Key {
	return Key{event.GetConversationId(), event.GetSender(), event.GetCommandId()}
}

// byKey returns the seqs at which each command is stored.
func (c Content) byKey() map[Key][]uint64 {
	stored := map[Key][]uint64{}
	for _, log := range c.Logs {
		for _, event := range log {
			stored[keyOf(event)] = append(stored[keyOf(event)], event.GetSeq())
		}
	}
	return stored
}

// bySeq returns the event with a seq; nil if the log has none.
func (c Content) bySeq(conversation string, seq uint64) *conversationv1.Event {
	log := c.Logs[conversation]
	if seq >= 1 && seq <= uint64(len(log)) && log[seq-1].GetSeq() == seq {
		return log[seq-1]
	}
	for _, event := range log {
		if event.GetSeq() == seq {
			return event
		}
	}
	return nil
}

// CheckStoredOnce checks I1: every committed command is stored once, with the acknowledged seq.
func CheckStoredOnce(h History, c Content) (found []Violation) {
	stored := c.byKey()
	for _, answer := range h.Answers {
		if answer.Seq > 0 && !slices.Equal(stored[answer.Key], []uint64{answer.Seq}) {
			found = append(found, violation("I1", "%s was acknowledged with seq %d; it is stored with %v", answer.Key, answer.Seq, stored[answer.Key]))
		}
	}
	return found
}

// CheckNoHoles checks I2: seq is 1 to n without a hole, and n is the conversation's head.
func CheckNoHoles(_ History, c Content) (found []Violation) {
	for id, log := range c.Logs {
		for i, event := range log {
			if event.GetSeq() != uint64(i)+1 {
				found = append(found, violation("I2", "in %s seq %d stands where %d belongs", id, event.GetSeq(), i+1))
				break
			}
		}
		if head := c.Heads[id]; head.Seq != uint64(len(log)) {
			found = append(found, violation("I2", "%s has %d events and says its head is %d", id, len(log), head.Seq))
		}
	}
	for id, head := range c.Heads {
		if len(c.Logs[id]) == 0 {
			found = append(found, violation("I2", "%s says its head is %d and has no events", id, head.Seq))
		}
	}
	return found
}

// CheckSendOrder checks I3: commands of one device to one conversation are stored in send order. A refused command has no
// place in this order, because it may be submitted again later, as another attempt.
func CheckSendOrder(h History, c Content) (found []Violation) {
	type lane struct {
		reader       Reader
		conversation string
	}
	newest, refused := map[lane]Attempt{}, h.refused()
	for _, id := range slices.Sorted(maps.Keys(c.Logs)) {
		for _, event := range c.Logs[id] {
			attempt, known := h.Attempts[keyOf(event)]
			if _, no := refused[attempt.Key]; !known || no {
				continue // I4 reports commands that nobody sent
			}
			l := lane{Reader{attempt.Key.Sender, attempt.Device}, id}
			if before, known := newest[l]; known && before.Order > attempt.Order {
				found = append(found, violation("I3", "in %s seq %d is command %d of %s, after its command %d", id, event.GetSeq(), attempt.Order, l.reader, before.Order))
			}
			newest[l] = attempt
		}
	}
	return found
}

// CheckNothingInvented checks I4: nothing is stored that nobody sent. Stored content equals the sent content, unless it
// was erased.
func CheckNothingInvented(h History, c Content) (found []Violation) {
	for id, log := range c.Logs {
		for _, event := range log {
			attempt, known := h.Attempts[keyOf(event)]
			switch {
			case !known:
				found = append(found, violation("I4", "%s seq %d: nobody sent %s", id, event.GetSeq(), keyOf(event)))
			case len(event.GetBody()) > 0 && !bytes.Equal(attempt.Body, event.GetBody()):
				found = append(found, violation("I4", "%s seq %d is not what was sent as %s", id, event.GetSeq(), keyOf(event)))
			}
		}
	}
	return found
}

// CheckKeys checks I5: no command and no (conversation, seq) is stored twice.
func CheckKeys(_ History, c Content) (found []Violation) {
	for key, seqs := range c.byKey() {
		if len(seqs) > 1 {
			found = append(found, violation("I5", "%s is stored %d times: seq %v", key, len(seqs), seqs))
		}
	}
	for id, log := range c.Logs {
		seen := map[uint64]bool{}
		for _, event := range log {
			if seen[event.GetSeq()] {
				found = append(found, violation("I5", "%s has seq %d twice", id, event.GetSeq()))
			}
			seen[event.GetSeq()] = true
		}
	}
	return found
}

// CheckViews checks I6: each reader's merged view equals the store, in order and complete. No event is dropped, no event
// is shown that differs from the stored one, no event is hidden that the user may see, and members have all events up to
// the head.
func CheckViews(h History, c Content) (found []Violation) {
	memberships := Memberships(c)
	for reader, items := range h.Shown {
		views := map[string]*view{}
		fail := func(id, format string, args ...any) {
			found = append(found, violation("I6", "%s in %s: "+format, append([]any{reader, id}, args...)...))
		}
		for _, item := range items {
			id := item.Conversation
			if views[id] == nil {
				views[id] = &view{}
			}
			if err := views[id].take(item); err != nil {
				fail(id, "%v", err)
			}
			if problem := h.compare(c, item, memberships[id][reader.User]); problem != "" {
				fail(id, "%s", problem)
			}
		}
		for id, users := range memberships {
			spans, v := users[reader.User], views[id]
			if len(spans) == 0 {
				continue
			}
			head := uint64(len(c.Logs[id]))
			member := spans[len(spans)-1].Last == 0
			switch {
			case member && (v == nil || !v.known):
				fail(id, "is a member in the end and was never told")
			case member && v.last != head:
				fail(id, "has it up to seq %d; the head is %d", v.last, head)
			case !member && v != nil && v.known:
				fail(id, "is no member since seq %d and was never told; has it up to %d", spans[len(spans)-1].Last, v.last)
			}
		}
	}
	for reader, items := range h.Observed {
		for _, item := range items {
			if problem := h.compare(c, item, memberships[item.Conversation][reader.User]); problem != "" {
				found = append(found, violation("I6", "%s in %s: %s", reader, item.Conversation, problem))
			}
		}
	}
	return found
}

// compare returns how an item that was shown to a user differs from the store; empty if it equals the store. memberships
// are the user's memberships.
func (h History) compare(c Content, item Item, memberships []Span) string {
	switch item.Kind {
	default:
	case ItemEvent:
		event := c.bySeq(item.Conversation, item.First)
		if event == nil {
			return fmt.Sprintf("was shown seq %d, which is not stored", item.First)
		}
		if hex.EncodeToString(event.GetHash()) != item.Hash {
			return fmt.Sprintf("was shown another seq %d than is stored", item.First)
		}
		// An event that was erased later was shown before with its content.
		body := event.GetBody()
		if len(body) == 0 {
			body = h.Attempts[keyOf(event)].Body
		}
		switch {
		case item.Content == "" && len(event.GetBody()) > 0:
			return fmt.Sprintf("was shown seq %d without its content, which is stored", item.First)
		case item.Content != "" && item.Content != understood(body):
			return fmt.Sprintf("was shown seq %d with another content than it was given", item.First)
		}
	case ItemHidden:
		for _, span := range memberships {
			if from := max(span.First, item.First); from <= item.Last && span.holds(from) {
				return fmt.Sprintf("seq %d to %d was hidden, but the user was a member from %d to %d", item.First, item.Last, span.First, span.Last)
			}
		}
	}
	return ""
}

func committedTwice(key Key, first, second uint64) Violation {
	return violation("I7", "%s was committed with seq %d, and again with %d", key, first, second)
}

// CheckRepeats checks I7: a retry of a committed command returns the same seq and is marked as a repetition. With another
// body it is refused as a conflict, unless the first body was erased and cannot be compared any more.
func CheckRepeats(h History, c Content) (found []Violation) {
	first := map[Key]uint64{}
	for _, answer := range h.Answers {
		if answer.Seq == 0 || answer.OtherBody {
			continue
		}
		if seq, known := first[answer.Key]; known && seq != answer.Seq {
			found = append(found, committedTwice(answer.Key, seq, answer.Seq))
			continue
		}
		first[answer.Key] = answer.Seq
	}
	for _, answer := range h.Answers {
		switch {
		case !answer.Again:
		case answer.OtherBody && answer.Repeated && len(c.bySeq(answer.Key.Conversation, answer.Seq).GetBody()) == 0:
		case answer.OtherBody && answer.Code != conversationv1.ErrorCode_ERROR_CODE_IDEMPOTENCY_CONFLICT:
			found = append(found, violation("I7", "%s was given again with another body: seq %d, %s", answer.Key, answer.Seq, answer.Code))
		case !answer.OtherBody && answer.Seq == 0:
			found = append(found, violation("I7", "%s was committed and is refused when repeated: %s", answer.Key, answer.Code))
		case !answer.OtherBody && !answer.Repeated:
			found = append(found, violation("I7", "%s was repeated and is not said to be: seq %d", answer.Key, answer.Seq))
		}
	}
	return found
}

// refused returns the commands whose newest attempt was refused. Repetitions of answered commands do not count.
func (h History) refused() map[Key]Answer {
	refused := map[Key]Answer{}
	for _, answer := range h.Answers {
		if answer.Seq == 0 && !answer.Again && answer.Attempt == h.Attempts[answer.Key].Newest {
			refused[answer.Key] = answer
		}
	}
	return refused
}

// CheckRefusals checks I13: a refusal is final. After the newest attempt of a command was refused, no copy of that
// command is stored, even if copies were still in flight.
func CheckRefusals(h History, c Content) (found []Violation) {
	for _, answer := range overtaken(h, c) {
		found = append(found, violation("I13", "%s was refused (%s) and is stored all the same", answer.Key, answer.Code))
	}
	return found
}

// overtaken returns the refusals of commands that are stored nevertheless.
func overtaken(h History, c Content) (answers []Answer) {
	stored := c.byKey()
	for key, answer := range h.refused() {
		if len(stored[key]) > 0 {
			answers = append(answers, answer)
		}
	}
	return answers
}

// CheckMembership checks I8: no user is shown an event from a time when they were not a member.
func CheckMembership(h History, c Content) (found []Violation) {
	memberships := Memberships(c)
	for _, readers := range []map[Reader][]Item{h.Shown, h.Observed} {
		for reader, items := range readers {
			for _, item := range items {
				if item.Kind != ItemEvent {
					continue
				}
				spans := memberships[item.Conversation][reader.User]
				if !slices.ContainsFunc(spans, func(s Span) bool { return s.holds(item.First) }) {
					found = append(found, violation("I8", "%s was shown seq %d of %s, and was a member only %v", reader, item.First, item.Conversation, spans))
				}
			}
		}
	}
	return found
}

// Memberships returns each user's memberships in each conversation, computed from the log alone. A membership is the
// stretch from the event that began it to the event that ended it, inclusive.
func Memberships(c Content) map[string]map[string][]Span {
	all := make(map[string]map[string][]Span, len(c.Logs))
	for id, log := range c.Logs {
		users := map[string][]Span{}
		for _, event := range log {
			for _, joiner := range conversation.Joiners(event) {
				users[joiner] = append(users[joiner], Span{First: event.GetSeq()})
			}
			if leaver := conversation.Leaver(event); leaver != "" && len(users[string(leaver)]) > 0 {
				users[string(leaver)][len(users[string(leaver)])-1].Last = event.GetSeq()
			}
		}
		all[id] = users
	}
	return all
}

// CheckChain checks promise 6: every log verifies from its first event to its head.
func CheckChain(_ History, c Content) (found []Violation) {
	for id, log := range c.Logs {
		v := chain.From(0, chain.Zero)
		for _, event := range log {
			if _, err := v.Next(event); err != nil {
				found = append(found, violation("chain", "%v", err))
				break
			}
		}
		if head := c.Heads[id]; v.Seq() == ids.Seq(head.Seq) && !bytes.Equal(v.Hash(), head.Hash) {
			found = append(found, violation("chain", "%s: the hash of its head is not that of seq %d", id, head.Seq))
		}
	}
	return found
}

func wentBack(regression string) Violation { return violation("watermark", "%s", regression) }

// CheckWatermarks checks that commits of former owners were refused: a watermark moves back only into a higher epoch. It
// also checks that no command of the load became a dead letter.
func CheckWatermarks(_ History, c Content) (found []Violation) {
	for _, regression := range c.Regressions {
		found = append(found, wentBack(regression))
	}
	if len(c.DeadLetters) > 0 {
		found = append(found, violation("dead letter", "%s", strings.Join(c.DeadLetters, "; ")))
	}
	return found
}
