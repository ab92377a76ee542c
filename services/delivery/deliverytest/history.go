package deliverytest

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/delivery/source"
)

// refusalMemory is how long the store remembers a refusal.
const refusalMemory = 10 * time.Minute

// CursorKey identifies a member of a conversation.
type CursorKey struct {
	Conversation ids.Conversation
	User         ids.User
}

// History implements the contract of the history service in memory, and fails on request. The tests in services/e2e run
// delivery with the real service.
type History struct {
	historyv1.HistoryServiceClient // methods that are not implemented panic

	Mu         sync.Mutex
	Watermarks map[uint32]*historyv1.Watermark
	Logs       map[string][]*conversationv1.Event
	States     map[string]*conversation.State
	Keys       map[source.CommandKey]*conversationv1.Event
	Cursors    map[CursorKey]*conversationv1.Cursor
	Letters    []*historyv1.DeadLetter
	Refusals   map[source.CommandKey]*historyv1.Refusal
	Views      map[string]*View
	Backups    map[uint32]*historyv1.Watermark
	Positions  map[uint32][]*historyv1.Position // of events, as they were appended
	Leases     *Leases
	partitions int
	Level      uint32
	clock      uint64 // the store's clock, for epochs
	Appends    int    // number of committed appends
	Asked      int    // number of needs in requests

	// before is called with each append; if it returns an error, the append fails. after is called once the append is
	// committed.
	before, after func(*historyv1.AppendRequest) error
	Saving        func(*historyv1.SaveCursorsRequest) error
}

// NewHistory makes an empty store.
func NewHistory(partitions int) *History {
	return &History{
		Watermarks: map[uint32]*historyv1.Watermark{}, Logs: map[string][]*conversationv1.Event{}, States: map[string]*conversation.State{},
		Keys: map[source.CommandKey]*conversationv1.Event{}, Cursors: map[CursorKey]*conversationv1.Cursor{}, Leases: NewLeases(partitions),
		Refusals: map[source.CommandKey]*historyv1.Refusal{}, Views: map[string]*View{}, Backups: map[uint32]*historyv1.Watermark{},
		Positions: map[uint32][]*historyv1.Position{}, partitions: partitions, Level: uint32(conversation.MaxLevel()),
	}
}

// Append commits a batch, or fails as set by Fail.
func (f *History) Append(_ context.Context, in *historyv1.AppendRequest, _ ...grpc.CallOption) (*historyv1.AppendResponse, error) {
	f.Mu.Lock()
	before, after := f.before, f.after
	f.Mu.Unlock()
	if before != nil {
		if err := before(in); err != nil {
			return nil, err
		}
	}
	answer, err := f.Commit(in)
	if err == nil && len(answer.GetDuplicates()) == 0 && after != nil {
		err = after(in)
	}
	return answer, err
}

// Commit is Append without failures.
func (f *History) Commit(in *historyv1.AppendRequest) (*historyv1.AppendResponse, error) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	mark := f.Watermarks[in.GetPartition()]
	if mark.GetStream() != in.GetExpected().GetStream() || mark.GetSequence() != in.GetExpected().GetSequence() || mark.GetEpoch() != in.GetExpected().GetEpoch() {
		return nil, status.Error(codes.Aborted, "the watermark moved")
	}
	if err := checkRequest(in, mark); err != nil {
		return nil, err
	}
	answer := &historyv1.AppendResponse{}
	for i, event := range in.GetEvents() {
		if first := f.Keys[source.KeyOfEvent(event)]; first != nil {
			answer.Duplicates = append(answer.Duplicates, &historyv1.Duplicate{Index: uint32(i), First: first})
		}
	}
	if len(answer.GetDuplicates()) > 0 {
		return answer, nil
	}
	heads := map[string]uint64{}
	for _, event := range in.GetEvents() {
		head, seen := heads[event.GetConversationId()]
		if !seen {
			head = uint64(len(f.Logs[event.GetConversationId()]))
		}
		if event.GetSeq() != head+1 {
			return nil, status.Error(codes.FailedPrecondition, "the seq is taken")
		}
		heads[event.GetConversationId()] = event.GetSeq()
	}
	for _, event := range in.GetEvents() {
		event = proto.Clone(event).(*conversationv1.Event)
		id := event.GetConversationId()
		f.Logs[id] = append(f.Logs[id], event)
		f.Keys[source.KeyOfEvent(event)] = event
		state := f.States[id]
		if state == nil {
			state = &conversation.State{}
		}
		f.States[id] = conversation.Fold(state, event)
	}
	f.carryOut(in)
	for key, refusal := range f.Refusals {
		if in.GetNext().GetTimeNs()/1e6-refusal.GetTimeMs() > refusalMemory.Milliseconds() {
			delete(f.Refusals, key)
		}
	}
	for _, refusal := range in.GetRefusals() {
		// A later refusal replaces an earlier one, even of the same attempt, because it is remembered for longer.
		present := f.Refusals[source.KeyOfProto(refusal.GetCommand())]
		if present == nil || refusal.GetAttempt() > present.GetAttempt() || refusal.GetTimeMs() > present.GetTimeMs() {
			f.Refusals[source.KeyOfProto(refusal.GetCommand())] = refusal
		}
	}
	f.Letters = append(f.Letters, in.GetDeadLetters()...)
	next := proto.Clone(in.GetNext()).(*historyv1.Watermark)
	if next.Epoch = mark.GetEpoch(); in.GetBeginEpoch() || mark == nil {
		f.clock++
		next.Epoch = max(mark.GetEpoch()+1, f.clock)
	}
	for _, sequence := range in.GetSequences() {
		f.Positions[in.GetPartition()] = append(f.Positions[in.GetPartition()], &historyv1.Position{Epoch: next.GetEpoch(), Sequence: sequence})
	}
	f.Watermarks[in.GetPartition()] = next
	f.Appends++
	answer.Epoch = next.GetEpoch()
	return answer, nil
}

// checkRequest refuses the invalid requests that the store refuses.
func checkRequest(in *historyv1.AppendRequest, mark *historyv1.Watermark) error {
	invalid := func(what string) error { return status.Error(codes.InvalidArgument, what) }
	if len(in.GetSequences()) != len(in.GetEvents()) {
		return invalid("sequences: one for each event")
	}
	begins := in.GetBeginEpoch() || mark == nil
	if !begins && mark.GetStream() != in.GetNext().GetStream() {
		return invalid("next: another stream without another epoch")
	}
	before := uint64(0)
	if !begins {
		before = mark.GetSequence()
	}
	for _, sequence := range in.GetSequences() {
		if sequence <= before || sequence > in.GetNext().GetSequence() {
			return invalid("sequences: must rise, above expected, and not above next")
		}
		before = sequence
	}
	for _, effect := range in.GetEffects() {
		if int(effect.GetEvent()) >= len(in.GetEvents()) || effect.GetEffect() == nil {
			return invalid("effects")
		}
	}
	for _, refusal := range in.GetRefusals() {
		if !source.KeyOfProto(refusal.GetCommand()).Committable() || len(refusal.GetCommitment()) != chain.Size || refusal.GetError() == nil || refusal.GetTimeMs() == 0 {
			return invalid("refusals")
		}
	}
	return nil
}

// GetWatermark implements the history service.
func (f *History) GetWatermark(_ context.Context, in *historyv1.GetWatermarkRequest, _ ...grpc.CallOption) (*historyv1.GetWatermarkResponse, error) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	mark := f.Watermarks[in.GetPartition()]
	if mark == nil {
		mark = &historyv1.Watermark{}
	}
	return &historyv1.GetWatermarkResponse{Watermark: proto.Clone(mark).(*historyv1.Watermark), Backup: f.Backups[in.GetPartition()]}, nil
}

// GetConversations implements the history service.
func (f *History) GetConversations(_ context.Context, in *historyv1.GetConversationsRequest, _ ...grpc.CallOption) (*historyv1.GetConversationsResponse, error) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	answer := &historyv1.GetConversationsResponse{}
	for _, id := range in.GetConversationIds() {
		if !conversation.ValidID(id) {
			return nil, status.Error(codes.InvalidArgument, "conversation_ids")
		}
		state := f.States[id]
		if state == nil {
			continue
		}
		c := &historyv1.ConversationState{
			ConversationId: id, Kind: state.Kind, Name: state.Name, Creator: string(state.Creator), Head: uint64(state.Head), HeadHash: state.HeadHash,
			NameSource: &historyv1.SetName{Name: state.Name, Seq: uint64(state.NameSource.Seq), Sender: string(state.NameSource.Sender), TimeMs: state.NameSource.TimeMs},
		}
		for user, joined := range state.Members {
			at := f.Cursors[CursorKey{Conversation: ids.Conversation(id), User: user}]
			if at == nil {
				at = &conversationv1.Cursor{UserId: string(user)}
			}
			c.Members = append(c.Members, &historyv1.Member{JoinedSeq: uint64(joined), Cursor: proto.Clone(at).(*conversationv1.Cursor)})
		}
		for user, seq := range state.Removed {
			c.Removed = append(c.Removed, &historyv1.Removal{UserId: string(user), Seq: uint64(seq)})
		}
		answer.Conversations = append(answer.Conversations, c)
	}
	return answer, nil
}

// FindCommands implements the history service.
func (f *History) FindCommands(_ context.Context, in *historyv1.FindCommandsRequest, _ ...grpc.CallOption) (*historyv1.FindCommandsResponse, error) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	answer := &historyv1.FindCommandsResponse{}
	for _, c := range in.GetCommands() {
		key := source.CommandKey{Conversation: ids.Conversation(c.GetConversationId()), Sender: ids.User(c.GetSender()), Command: ids.Command(c.GetCommandId())}
		if !key.Committable() {
			return nil, status.Error(codes.InvalidArgument, "commands")
		}
		if event := f.Keys[key]; event != nil {
			answer.Events = append(answer.Events, event)
		}
	}
	return answer, nil
}

// SaveCursors implements the history service.
func (f *History) SaveCursors(_ context.Context, in *historyv1.SaveCursorsRequest, _ ...grpc.CallOption) (*historyv1.SaveCursorsResponse, error) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	if f.Saving != nil {
		if err := f.Saving(in); err != nil {
			return nil, err
		}
	}
	for _, u := range in.GetUpdates() {
		key := CursorKey{Conversation: ids.Conversation(u.GetConversationId()), User: ids.User(u.GetCursor().GetUserId())}
		at := f.Cursors[key]
		if at == nil {
			at = &conversationv1.Cursor{UserId: string(key.User)}
			f.Cursors[key] = at
		}
		if u.GetCursor().GetDeliveredSeq() > at.GetDeliveredSeq() {
			at.DeliveredSeq, at.DeliveredTimeMs = u.GetCursor().GetDeliveredSeq(), u.GetCursor().GetDeliveredTimeMs()
		}
		if u.GetCursor().GetReadSeq() > at.GetReadSeq() {
			at.ReadSeq, at.ReadTimeMs = u.GetCursor().GetReadSeq(), u.GetCursor().GetReadTimeMs()
		}
	}
	return &historyv1.SaveCursorsResponse{}, nil
}

// Lease implements the history service.
func (f *History) Lease(ctx context.Context, in *historyv1.LeaseRequest, opts ...grpc.CallOption) (*historyv1.LeaseResponse, error) {
	return f.Leases.Lease(ctx, in, opts...)
}

// Fail sets the functions that are called around appends. If before returns an error, the append fails with it. after is
// called once the append is committed.
func (f *History) Fail(before, after func(*historyv1.AppendRequest) error) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	f.before, f.after = before, after
}

// Mark returns the watermark of partition 0.
func (f *History) Mark() *historyv1.Watermark {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	return proto.Clone(f.Watermarks[0]).(*historyv1.Watermark)
}

// SetMark replaces the watermark of partition 0.
func (f *History) SetMark(mark *historyv1.Watermark) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	f.Watermarks[0] = mark
}

// Cursor returns the stored cursor of a member.
func (f *History) Cursor(conversationID ids.Conversation, user ids.User) *conversationv1.Cursor {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	if at := f.Cursors[CursorKey{Conversation: conversationID, User: user}]; at != nil {
		return proto.Clone(at).(*conversationv1.Cursor)
	}
	return &conversationv1.Cursor{UserId: string(user)}
}

// DeadLetters returns all stored dead letters.
func (f *History) DeadLetters() []*historyv1.DeadLetter {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	return append([]*historyv1.DeadLetter(nil), f.Letters...)
}

// Verify checks I2, I5 and the chain of every log.
func (f *History) Verify(t rapid.TB) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	keys := map[source.CommandKey]bool{}
	for id, log := range f.Logs {
		var v chain.Verifier
		for i, event := range log {
			content, err := v.Next(event)
			require.NoError(t, err, "conversation %s", id)
			require.NotEqual(t, chain.NotChecked, content)
			require.EqualValues(t, i+1, event.GetSeq())
			require.False(t, keys[source.KeyOfEvent(event)], "committed twice")
			keys[source.KeyOfEvent(event)] = true
		}
	}
}
