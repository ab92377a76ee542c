package store

import (
	"encoding/hex"
	"fmt"
	"math"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
)

// Batch is an append, divided into the rows to write. Making a Batch needs no database. It is done before the transaction
// begins, so that it delays no other writer.
type Batch struct {
	*historyv1.AppendRequest
	// Rows are the events in the order of the request, with the values whose stored form differs.
	Rows []Row
	// Changes contains one entry for each conversation of the batch, in order of first appearance.
	Changes []Change
	// Effects are the effects that are not part of Changes, in request order.
	Effects []Effect
}

// Row is an event with the values whose form in the table differs from the message.
type Row struct {
	*conversationv1.Event
	CommandID [16]byte
	// Sequence is the stream sequence of the event's command.
	Sequence ids.Sequence
	// Commitment is stored only if it cannot be computed from salt and body.
	Commitment []byte
	// Target is the first seq in the event's header_extra; 0 if there is none.
	Target ids.Seq
}

// Plain reports whether the event has only the fields that every plain message has.
func (r *Row) Plain() bool {
	return r.Commitment == nil && r.Target == 0 && len(r.GetHeaderExtra()) == 0 && r.GetFormat() == chain.Format
}

// Change is the change of one conversation's row by a batch.
type Change struct {
	ID ids.Conversation
	// First and Last are the first and last seq of the conversation in the batch. First is 1 if the batch creates the
	// conversation.
	First, Last ids.Seq
	// Hash and Sequence belong to the event at Last. LastRow is the index of that event in Rows.
	Hash     []byte
	Sequence ids.Sequence
	LastRow  int
	// Kind, Creator and CreatedMs are set if the batch creates the conversation.
	Kind      conversationv1.Kind
	Creator   ids.User
	CreatedMs int64
	// Name is the name after the batch, with the event that set it; nil if the name does not change.
	Name *historyv1.SetName
	// Members is the change of the number of members.
	Members int

	created bool
}

// Creates reports whether the batch creates the conversation.
func (c *Change) Creates() bool { return c.First == 1 }

// Effect is a write that an event causes in addition to its own row and the row of its conversation.
type Effect struct {
	*historyv1.Effect
	// Row is the event that causes the effect.
	Row *Row
}

// Begins reports whether the batch begins an epoch: because the request says so, or because it is the partition's first
// batch.
func (b *Batch) Begins() bool { return b.GetBeginEpoch() || b.GetExpected().GetEpoch() == 0 }

// Plan divides a batch. It checks that, per conversation, seqs rise by one, that exactly the events with seq 1 create
// conversations, and that positions rise. The error is an *InvalidError or ErrPosition.
func Plan(request *historyv1.AppendRequest) (*Batch, error) {
	events := request.GetEvents()
	batch := &Batch{AppendRequest: request, Rows: make([]Row, len(events)), Changes: make([]Change, 0, len(events))}
	if err := batch.checkPositions(); err != nil {
		return nil, err
	}
	index := make(map[ids.Conversation]int, len(events))
	for i, event := range events {
		row := &batch.Rows[i]
		row.Event, row.Sequence = event, ids.Sequence(request.GetSequences()[i])
		if !decodeCommandID(&row.CommandID, event.GetCommandId()) {
			return nil, Invalid(fmt.Sprintf("events[%d].command_id", i), "must be a UUID")
		}
		if len(event.GetBody()) == 0 || event.GetFormat() != chain.Format {
			row.Commitment = event.GetCommitment()
		}
		row.Target = firstTarget(event)

		at, seen := index[ids.Conversation(event.GetConversationId())]
		if !seen {
			at = len(batch.Changes)
			index[ids.Conversation(event.GetConversationId())] = at
			batch.Changes = append(batch.Changes, Change{ID: ids.Conversation(event.GetConversationId()), First: ids.Seq(event.GetSeq())})
		}
		change := &batch.Changes[at]
		if seen && ids.Seq(event.GetSeq()) != change.Last+1 {
			return nil, Invalid(fmt.Sprintf("events[%d].seq", i), "must be %d, to follow the conversation's event before it", change.Last+1)
		}
		change.Last, change.Hash, change.Sequence, change.LastRow = ids.Seq(event.GetSeq()), event.GetHash(), row.Sequence, i
	}
	if err := batch.planEffects(index); err != nil {
		return nil, err
	}
	return batch, nil
}

// checkPositions checks that the watermark and the positions of events rise, unless the batch begins an epoch.
func (b *Batch) checkPositions() error {
	if len(b.GetSequences()) != len(b.GetEvents()) {
		return Invalid("sequences", "must be one for each event")
	}
	expected, next := b.GetExpected(), b.GetNext()
	last := uint64(0)
	if !b.Begins() {
		if next.GetStream() != expected.GetStream() || next.GetSequence() < expected.GetSequence() {
			return fmt.Errorf("%w: the watermark goes from %d of stream %q to %d of stream %q", ErrPosition,
				expected.GetSequence(), expected.GetStream(), next.GetSequence(), next.GetStream())
		}
		last = expected.GetSequence()
	}
	for i, sequence := range b.GetSequences() {
		if sequence <= last || sequence > next.GetSequence() {
			return fmt.Errorf("%w: sequences[%d] is %d, which is not above %d and at most %d", ErrPosition, i, sequence, last, next.GetSequence())
		}
		last = sequence
	}
	return nil
}

// planEffects adds the effects on rows of conversations to the changes, and lists the other effects in order.
func (b *Batch) planEffects(index map[ids.Conversation]int) error {
	for i, effect := range b.GetEffects() {
		if int(effect.GetEvent()) >= len(b.Rows) {
			return Invalid(fmt.Sprintf("effects[%d].event", i), "must be the index of an event")
		}
		row := &b.Rows[effect.GetEvent()]
		change := &b.Changes[index[ids.Conversation(row.GetConversationId())]]
		switch e := effect.GetEffect().(type) {
		case *historyv1.Effect_CreateConversation:
			if row.GetSeq() != 1 {
				return Invalid(fmt.Sprintf("effects[%d].create_conversation", i), "must come of seq 1")
			}
			change.created = true
			change.Kind, change.Creator, change.CreatedMs = e.CreateConversation.GetKind(), ids.User(row.GetSender()), row.GetTimeMs()
			continue
		case *historyv1.Effect_SetName:
			change.Name = e.SetName
			continue
		case *historyv1.Effect_BeginMemberships:
			change.Members += len(e.BeginMemberships.GetUserIds())
		case *historyv1.Effect_EndMembership:
			change.Members--
		case *historyv1.Effect_EraseEvents:
			if err := CheckErase(fmt.Sprintf("effects[%d].erase_events", i), e.EraseEvents); err != nil {
				return err
			}
		}
		b.Effects = append(b.Effects, Effect{Effect: effect, Row: row})
	}
	for i := range b.Changes {
		if change := &b.Changes[i]; change.Creates() != change.created {
			return Invalid("events", "seq 1 creates the conversation by an effect, and nothing else does")
		}
	}
	return nil
}

// CheckErase returns an *InvalidError if an erasure does not say which events to erase.
func CheckErase(field string, erase *historyv1.EraseEvents) error {
	if len(erase.GetSeqs()) == 0 && erase.GetSender() == "" && erase.GetBeforeMs() <= 0 {
		return Invalid(field, "must name seqs, a sender or a time")
	}
	return nil
}

// firstTarget returns the first seq that an event refers to; 0 if there is none, or if databases do not accept it.
func firstTarget(event *conversationv1.Event) ids.Seq {
	seqs := conversation.TargetsOf(event).GetSeqs()
	if len(seqs) == 0 || seqs[0] > math.MaxInt64 {
		return 0
	}
	return ids.Seq(seqs[0])
}

// Repeated returns an *InvalidError if two events of the batch have the same command, and nil otherwise. It is called
// only after a batch was refused, so it costs valid batches nothing.
func (b *Batch) Repeated() error {
	seen := make(map[commandKey]int, len(b.Rows))
	for i := range b.Rows {
		row := &b.Rows[i]
		key := commandKey{ids.Conversation(row.GetConversationId()), ids.User(row.GetSender()), row.CommandID}
		if first, repeated := seen[key]; repeated {
			return Invalid(fmt.Sprintf("events[%d].command_id", i), "is the same as that of events[%d]", first)
		}
		seen[key] = i
	}
	return nil
}

type commandKey struct {
	conversation ids.Conversation
	sender       ids.User
	command      [16]byte
}

// decodeCommandID parses a UUID in its canonical form of 36 characters.
func decodeCommandID(dst *[16]byte, s string) bool {
	if len(s) != 36 {
		return false
	}
	var digits [32]byte
	copy(digits[:8], s)
	copy(digits[8:12], s[9:])
	copy(digits[12:16], s[14:])
	copy(digits[16:20], s[19:])
	copy(digits[20:], s[24:])
	_, err := hex.Decode(dst[:], digits[:])
	return err == nil
}

// DecodeCommandID returns the 16 bytes of a command id; false if s is not a UUID in canonical form.
func DecodeCommandID(s string) (id [16]byte, ok bool) {
	ok = decodeCommandID(&id, s)
	return id, ok
}

// EncodeCommandID returns the canonical form of 16 bytes. Other lengths occur only in a damaged row. For these it returns
// the hex digits, which are not a valid id, so that verification reports the row.
func EncodeCommandID(id []byte) string {
	if len(id) != 16 {
		return hex.EncodeToString(id)
	}
	var text [36]byte
	hex.Encode(text[:8], id[:4])
	hex.Encode(text[9:13], id[4:6])
	hex.Encode(text[14:18], id[6:8])
	hex.Encode(text[19:23], id[8:10])
	hex.Encode(text[24:], id[10:])
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	return string(text[:])
}

// Complete sets the commitment of an event that was read. The commitment is stored only if it cannot be computed from
// salt and body. If the row has neither, the event is returned without a commitment, so that verification reports it
// instead of accepting it as erased.
func Complete(event *conversationv1.Event) {
	if len(event.GetCommitment()) == 0 && len(event.GetBody()) > 0 {
		commitment := chain.Commitment(event.GetSalt(), event.GetBody())
		event.Commitment = commitment[:]
	}
}
