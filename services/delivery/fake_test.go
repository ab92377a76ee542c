package delivery

import (
	"context"
	"sync"

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
	"github.com/runnelhq/runnel/services/delivery/cursor"
	"github.com/runnelhq/runnel/services/delivery/dedupe"
	"github.com/runnelhq/runnel/services/delivery/deliverytest"
	"github.com/runnelhq/runnel/services/delivery/source"
)

// fakeHistory keeps the contract of the history service in memory, and fails on request. The real service is tested with
// delivery in services/e2e.
type fakeHistory struct {
	historyv1.HistoryServiceClient // what is not faked panics

	mu         sync.Mutex
	watermarks map[uint32]*historyv1.Watermark
	logs       map[string][]*conversationv1.Event
	states     map[string]*conversation.State
	keys       map[source.CommandKey]*conversationv1.Event
	cursors    map[cursor.Key]*conversationv1.Cursor
	letters    []*historyv1.DeadLetter
	refusals   map[source.CommandKey]*historyv1.Refusal
	views      map[string]*fakeView
	backups    map[uint32]*historyv1.Watermark
	positions  map[uint32][]*historyv1.Position // of events, as they were appended
	leases     *deliverytest.Leases
	partitions int
	level      uint32
	clock      uint64 // the store's, for epochs
	appends    int    // that were committed
	asked      int    // needs that were asked for

	// before is asked at each append; its error is given instead of committing. after is asked once it is committed.
	before, after func(*historyv1.AppendRequest) error
	saving        func(*historyv1.SaveCursorsRequest) error
}

func newFakeHistory(partitions int) *fakeHistory {
	return &fakeHistory{
		watermarks: map[uint32]*historyv1.Watermark{}, logs: map[string][]*conversationv1.Event{}, states: map[string]*conversation.State{},
		keys: map[source.CommandKey]*conversationv1.Event{}, cursors: map[cursor.Key]*conversationv1.Cursor{}, leases: deliverytest.NewLeases(partitions),
		refusals: map[source.CommandKey]*historyv1.Refusal{}, views: map[string]*fakeView{}, backups: map[uint32]*historyv1.Watermark{},
		positions: map[uint32][]*historyv1.Position{}, partitions: partitions, level: uint32(conversation.MaxLevel()),
	}
}

func (f *fakeHistory) Append(_ context.Context, in *historyv1.AppendRequest, _ ...grpc.CallOption) (*historyv1.AppendResponse, error) {
	f.mu.Lock()
	before, after := f.before, f.after
	f.mu.Unlock()
	if before != nil {
		if err := before(in); err != nil {
			return nil, err
		}
	}
	answer, err := f.append(in)
	if err == nil && len(answer.GetDuplicates()) == 0 && after != nil {
		err = after(in)
	}
	return answer, err
}

func (f *fakeHistory) append(in *historyv1.AppendRequest) (*historyv1.AppendResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	mark := f.watermarks[in.GetPartition()]
	if mark.GetStream() != in.GetExpected().GetStream() || mark.GetSequence() != in.GetExpected().GetSequence() || mark.GetEpoch() != in.GetExpected().GetEpoch() {
		return nil, status.Error(codes.Aborted, "the watermark moved")
	}
	if err := checkRequest(in, mark); err != nil {
		return nil, err
	}
	answer := &historyv1.AppendResponse{}
	for i, event := range in.GetEvents() {
		if first := f.keys[source.KeyOfEvent(event)]; first != nil {
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
			head = uint64(len(f.logs[event.GetConversationId()]))
		}
		if event.GetSeq() != head+1 {
			return nil, status.Error(codes.FailedPrecondition, "the seq is taken")
		}
		heads[event.GetConversationId()] = event.GetSeq()
	}
	for _, event := range in.GetEvents() {
		event = proto.Clone(event).(*conversationv1.Event)
		id := event.GetConversationId()
		f.logs[id] = append(f.logs[id], event)
		f.keys[source.KeyOfEvent(event)] = event
		state := f.states[id]
		if state == nil {
			state = &conversation.State{}
		}
		f.states[id] = conversation.Fold(state, event)
	}
	f.carryOut(in)
	for key, refusal := range f.refusals {
		if in.GetNext().GetTimeNs()/1e6-refusal.GetTimeMs() > dedupe.RefusalMemory.Milliseconds() {
			delete(f.refusals, key)
		}
	}
	for _, refusal := range in.GetRefusals() {
		// A later refusal replaces an earlier one, of the same attempt too: it is remembered for longer.
		present := f.refusals[source.KeyOfProto(refusal.GetCommand())]
		if present == nil || refusal.GetAttempt() > present.GetAttempt() || refusal.GetTimeMs() > present.GetTimeMs() {
			f.refusals[source.KeyOfProto(refusal.GetCommand())] = refusal
		}
	}
	f.letters = append(f.letters, in.GetDeadLetters()...)
	next := proto.Clone(in.GetNext()).(*historyv1.Watermark)
	if next.Epoch = mark.GetEpoch(); in.GetBeginEpoch() || mark == nil {
		f.clock++
		next.Epoch = max(mark.GetEpoch()+1, f.clock)
	}
	for _, sequence := range in.GetSequences() {
		f.positions[in.GetPartition()] = append(f.positions[in.GetPartition()], &historyv1.Position{Epoch: next.GetEpoch(), Sequence: sequence})
	}
	f.watermarks[in.GetPartition()] = next
	f.appends++
	answer.Epoch = next.GetEpoch()
	return answer, nil
}

// checkRequest refuses what the store refuses of a request that makes no sense.
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

func (f *fakeHistory) GetWatermark(_ context.Context, in *historyv1.GetWatermarkRequest, _ ...grpc.CallOption) (*historyv1.GetWatermarkResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	mark := f.watermarks[in.GetPartition()]
	if mark == nil {
		mark = &historyv1.Watermark{}
	}
	return &historyv1.GetWatermarkResponse{Watermark: proto.Clone(mark).(*historyv1.Watermark), Backup: f.backups[in.GetPartition()]}, nil
}

func (f *fakeHistory) GetConversations(_ context.Context, in *historyv1.GetConversationsRequest, _ ...grpc.CallOption) (*historyv1.GetConversationsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	answer := &historyv1.GetConversationsResponse{}
	for _, id := range in.GetConversationIds() {
		if !conversation.ValidID(id) {
			return nil, status.Error(codes.InvalidArgument, "conversation_ids")
		}
		state := f.states[id]
		if state == nil {
			continue
		}
		c := &historyv1.ConversationState{
			ConversationId: id, Kind: state.Kind, Name: state.Name, Creator: state.Creator, Head: state.Head, HeadHash: state.HeadHash,
			NameSource: &historyv1.SetName{Name: state.Name, Seq: state.NameSource.Seq, Sender: state.NameSource.Sender, TimeMs: state.NameSource.TimeMs},
		}
		for user, joined := range state.Members {
			at := f.cursors[cursor.Key{Conversation: id, User: user}]
			if at == nil {
				at = &conversationv1.Cursor{UserId: user}
			}
			c.Members = append(c.Members, &historyv1.Member{JoinedSeq: joined, Cursor: proto.Clone(at).(*conversationv1.Cursor)})
		}
		answer.Conversations = append(answer.Conversations, c)
	}
	return answer, nil
}

func (f *fakeHistory) FindCommands(_ context.Context, in *historyv1.FindCommandsRequest, _ ...grpc.CallOption) (*historyv1.FindCommandsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	answer := &historyv1.FindCommandsResponse{}
	for _, c := range in.GetCommands() {
		key := source.CommandKey{Conversation: c.GetConversationId(), Sender: c.GetSender(), Command: c.GetCommandId()}
		if !key.Committable() {
			return nil, status.Error(codes.InvalidArgument, "commands")
		}
		if event := f.keys[key]; event != nil {
			answer.Events = append(answer.Events, event)
		}
	}
	return answer, nil
}

func (f *fakeHistory) SaveCursors(_ context.Context, in *historyv1.SaveCursorsRequest, _ ...grpc.CallOption) (*historyv1.SaveCursorsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.saving != nil {
		if err := f.saving(in); err != nil {
			return nil, err
		}
	}
	for _, u := range in.GetUpdates() {
		key := cursor.Key{Conversation: u.GetConversationId(), User: u.GetCursor().GetUserId()}
		at := f.cursors[key]
		if at == nil {
			at = &conversationv1.Cursor{UserId: key.User}
			f.cursors[key] = at
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

func (f *fakeHistory) Lease(ctx context.Context, in *historyv1.LeaseRequest, opts ...grpc.CallOption) (*historyv1.LeaseResponse, error) {
	return f.leases.Lease(ctx, in, opts...)
}

// fail sets what happens around appends.
func (f *fakeHistory) fail(before, after func(*historyv1.AppendRequest) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before, f.after = before, after
}

func (f *fakeHistory) mark() *historyv1.Watermark {
	f.mu.Lock()
	defer f.mu.Unlock()
	return proto.Clone(f.watermarks[0]).(*historyv1.Watermark)
}

func (f *fakeHistory) setMark(mark *historyv1.Watermark) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watermarks[0] = mark
}

func (f *fakeHistory) cursor(conversationID, user string) *conversationv1.Cursor {
	f.mu.Lock()
	defer f.mu.Unlock()
	if at := f.cursors[cursor.Key{Conversation: conversationID, User: user}]; at != nil {
		return proto.Clone(at).(*conversationv1.Cursor)
	}
	return &conversationv1.Cursor{UserId: user}
}

func (f *fakeHistory) deadLetters() []*historyv1.DeadLetter {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]*historyv1.DeadLetter(nil), f.letters...)
}

// verify checks I2 and I5 and the chain of every log.
func (f *fakeHistory) verify(t rapid.TB) {
	f.mu.Lock()
	defer f.mu.Unlock()
	keys := map[source.CommandKey]bool{}
	for id, log := range f.logs {
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

func (s *split) Lease(ctx context.Context, in *historyv1.LeaseRequest, opts ...grpc.CallOption) (*historyv1.LeaseResponse, error) {
	return s.leases.Lease(ctx, in, opts...)
}

// reluctant is the store that does not always answer questions about conversations.
type reluctant struct {
	*fakeHistory

	refuse func() error
}

func (r *reluctant) GetConversations(ctx context.Context, in *historyv1.GetConversationsRequest, opts ...grpc.CallOption) (*historyv1.GetConversationsResponse, error) {
	if err := r.refuse(); err != nil {
		return nil, err
	}
	return r.fakeHistory.GetConversations(ctx, in, opts...)
}
