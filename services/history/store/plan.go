package store

import (
	"encoding/hex"
	"fmt"

	"github.com/runnelhq/runnel/pkg/conversation"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// Batch is an append taken apart into what has to be written. Making it needs no database, so it is done before a
// transaction begins and holds nobody up.
type Batch struct {
	*historyv1.AppendRequest
	// Rows are the events in the order of the request, with what is stored in another form.
	Rows []Row
	// Changes holds one entry for each conversation of the batch, in order of first appearance.
	Changes []Change
	// Memberships begin and end in this order.
	Memberships []Membership
}

// Row is what an event looks like in a table, as far as it differs from the message.
type Row struct {
	*conversationv1.Event
	CommandID [16]byte
	Body      []byte
}

// Change is what a batch does to one conversation.
type Change struct {
	ID string
	// First and Last are the batch's first and last seq of it; First is 1 when the batch creates it.
	First, Last uint64
	// Hash is that of the event at Last.
	Hash []byte
	// Kind, Creator and CreatedMs are set when the batch creates it.
	Kind      conversationv1.Kind
	Creator   string
	CreatedMs int64
	// Name is the name after the batch, if Renamed.
	Name    string
	Renamed bool
	// Members is by how many the number of members rises (or falls).
	Members int
}

// Creates reports whether the batch creates the conversation.
func (c *Change) Creates() bool { return c.First == 1 }

// Membership is the beginning or end of memberships by one event.
type Membership struct {
	ConversationID string
	Seq            uint64
	// Joined became members at Seq. Empty when Left is set.
	Joined []string
	// Left stopped being a member at Seq.
	Left string
}

// Plan takes a batch apart. The error is an *InvalidError: per conversation, seq must rise by one, and seq 1 and only seq 1
// creates.
func Plan(request *historyv1.AppendRequest) (*Batch, error) {
	events := request.GetEvents()
	batch := &Batch{AppendRequest: request, Rows: make([]Row, len(events)), Changes: make([]Change, 0, len(events))}
	size := 0
	for _, event := range events {
		size += event.GetBody().SizeVT()
	}
	bodies := make([]byte, size) // one allocation for all bodies
	index := make(map[string]int, len(events))
	for i, event := range events {
		row := &batch.Rows[i]
		row.Event = event
		if !decodeCommandID(&row.CommandID, event.GetCommandId()) {
			return nil, Invalid(fmt.Sprintf("events[%d].command_id", i), "must be a UUID")
		}
		n := event.GetBody().SizeVT()
		if _, err := event.GetBody().MarshalToSizedBufferVT(bodies[:n]); err != nil {
			return nil, Invalid(fmt.Sprintf("events[%d].body", i), "cannot be encoded")
		}
		row.Body, bodies = bodies[:n:n], bodies[n:]

		at, seen := index[event.GetConversationId()]
		if !seen {
			at = len(batch.Changes)
			index[event.GetConversationId()] = at
			batch.Changes = append(batch.Changes, Change{ID: event.GetConversationId(), First: event.GetSeq()})
		}
		if reason := batch.note(&batch.Changes[at], event, seen); reason != "" {
			return nil, Invalid(fmt.Sprintf("events[%d].seq", i), "%s", reason)
		}
	}
	return batch, nil
}

// note adds one event to the change of its conversation.
func (b *Batch) note(change *Change, event *conversationv1.Event, seen bool) string {
	if seen && event.GetSeq() != change.Last+1 {
		return fmt.Sprintf("must be %d, to follow the conversation's event before it", change.Last+1)
	}
	change.Last, change.Hash = event.GetSeq(), event.GetHash()
	create := event.GetBody().GetCreate()
	if (create != nil) != (event.GetSeq() == 1) {
		return "seq 1 creates the conversation, and nothing else does"
	}
	if create != nil {
		change.Kind, change.Name, change.Creator, change.CreatedMs = create.GetKind(), create.GetName(), event.GetSender(), event.GetTimeMs()
	}
	if rename := event.GetBody().GetRename(); rename != nil {
		change.Name, change.Renamed = rename.GetName(), true
	}
	if joined := conversation.Joiners(event); len(joined) > 0 {
		change.Members += len(joined)
		b.Memberships = append(b.Memberships, Membership{ConversationID: change.ID, Seq: event.GetSeq(), Joined: joined})
	}
	if left := conversation.Leaver(event); left != "" {
		change.Members--
		b.Memberships = append(b.Memberships, Membership{ConversationID: change.ID, Seq: event.GetSeq(), Left: left})
	}
	return ""
}

// Repeated gives an *InvalidError when two events of the batch have the same command, and nil otherwise. It is
// asked only once a batch has been refused, so that a good batch does not pay for it.
func (b *Batch) Repeated() error {
	seen := make(map[commandKey]int, len(b.Rows))
	for i := range b.Rows {
		row := &b.Rows[i]
		key := commandKey{row.GetConversationId(), row.GetSender(), row.CommandID}
		if first, repeated := seen[key]; repeated {
			return Invalid(fmt.Sprintf("events[%d].command_id", i), "is that of events[%d] again", first)
		}
		seen[key] = i
	}
	return nil
}

type commandKey struct {
	conversation, sender string
	command              [16]byte
}

// decodeCommandID reads a UUID in its canonical form of 36 characters.
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

// DecodeCommandID gives the 16 bytes of a command id; false when s is not a UUID in canonical form.
func DecodeCommandID(s string) (id [16]byte, ok bool) {
	ok = decodeCommandID(&id, s)
	return id, ok
}

// EncodeCommandID gives the canonical form of 16 bytes. Other lengths, which only a damaged row has, give their hex
// digits: no valid id, so the chain names the row.
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

// SetBody decodes a stored body into its event; nil is an erased one. What cannot be decoded leaves the event without body and
// commitment: verification then names it, and nobody takes it for erased.
func SetBody(event *conversationv1.Event, stored []byte) {
	if stored == nil {
		return
	}
	body := &conversationv1.Body{}
	if err := body.UnmarshalVT(stored); err != nil {
		event.Commitment = nil
		return
	}
	event.Body = body
}
