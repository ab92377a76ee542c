package deliverytest

import (
	"cmp"
	"context"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/delivery/source"
)

// View contains the rows that effects write for one conversation.
type View struct {
	Rows      map[uint64]*historyv1.MessageRow
	Reactions map[uint64][]*historyv1.Reaction // by message
}

// carryOut carries out the effects of an append. The caller holds mu.
func (f *History) carryOut(in *historyv1.AppendRequest) {
	for _, effect := range in.GetEffects() {
		event := in.GetEvents()[effect.GetEvent()]
		id := event.GetConversationId()
		view := f.Views[id]
		if view == nil {
			view = &View{Rows: map[uint64]*historyv1.MessageRow{}, Reactions: map[uint64][]*historyv1.Reaction{}}
			f.Views[id] = view
		}
		switch e := effect.GetEffect().(type) {
		case *historyv1.Effect_PutMessage:
			view.Rows[e.PutMessage.GetSeq()] = proto.Clone(e.PutMessage).(*historyv1.MessageRow)
		case *historyv1.Effect_PutReaction:
			view.Reactions[e.PutReaction.GetTarget()] = append(view.Reactions[e.PutReaction.GetTarget()], e.PutReaction)
		case *historyv1.Effect_DropReactions:
			drop := e.DropReactions
			view.Reactions[drop.GetTarget()] = slices.DeleteFunc(slices.Clone(view.Reactions[drop.GetTarget()]), func(r *historyv1.Reaction) bool {
				return drop.GetSeq() == 0 || r.GetSeq() == drop.GetSeq()
			})
		case *historyv1.Effect_EraseEvents:
			f.erase(id, view, e.EraseEvents)
		}
	}
}

func (f *History) erase(id string, view *View, erased *historyv1.EraseEvents) {
	for i, event := range f.Logs[id] {
		subject := event.GetSeq()
		if erased.GetTargeting() {
			targets := &conversationv1.Targets{}
			if targets.UnmarshalVT(event.GetHeaderExtra()) != nil || len(targets.GetSeqs()) == 0 {
				continue
			}
			subject = targets.GetSeqs()[0]
		}
		switch {
		case event.GetSeq() >= erased.GetBelow(), !slices.Contains(erased.GetKinds(), event.GetKind()),
			len(erased.GetSeqs()) > 0 && !slices.Contains(erased.GetSeqs(), subject),
			erased.GetSender() != "" && erased.GetSender() != event.GetSender(),
			erased.GetBeforeMs() != 0 && event.GetTimeMs() >= erased.GetBeforeMs():
			continue
		}
		gone := proto.Clone(event).(*conversationv1.Event)
		chain.Erase(gone)
		f.Logs[id][i], f.Keys[source.KeyOfEvent(gone)] = gone, gone
		for target, reactions := range view.Reactions {
			view.Reactions[target] = slices.DeleteFunc(slices.Clone(reactions), func(r *historyv1.Reaction) bool { return r.GetSeq() == gone.GetSeq() })
		}
	}
}

// GetFacts implements the history service.
func (f *History) GetFacts(_ context.Context, in *historyv1.GetFactsRequest, _ ...grpc.CallOption) (*historyv1.GetFactsResponse, error) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	if len(in.GetNeeds()) > 1000 {
		return nil, status.Error(codes.InvalidArgument, "needs: at most 1000")
	}
	f.Asked += len(in.GetNeeds())
	answer := &historyv1.GetFactsResponse{}
	for i, n := range in.GetNeeds() {
		log := f.Logs[n.GetConversationId()]
		if n.GetSeq() == 0 || n.GetSeq() > uint64(len(log)) {
			continue
		}
		event := log[n.GetSeq()-1]
		fact := &historyv1.Fact{
			Need: uint32(i), Kind: event.GetKind(), Sender: event.GetSender(), TimeMs: event.GetTimeMs(), Erased: len(event.GetBody()) == 0,
		}
		if view := f.Views[n.GetConversationId()]; view != nil {
			fact.Row = view.Rows[n.GetSeq()]
			for _, r := range view.Reactions[n.GetSeq()] {
				if n.GetUserId() != "" && r.GetUserId() == n.GetUserId() {
					fact.Reactions = append(fact.Reactions, r)
				}
			}
		}
		answer.Facts = append(answer.Facts, fact)
	}
	return answer, nil
}

// ListRefusals implements the history service.
func (f *History) ListRefusals(_ context.Context, in *historyv1.ListRefusalsRequest, _ ...grpc.CallOption) (*historyv1.ListRefusalsResponse, error) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	var all []*historyv1.Refusal
	for key, refusal := range f.Refusals {
		after := in.GetAfter() == nil || CompareKeys(key, source.KeyOfProto(in.GetAfter())) > 0
		if after && conversation.Partition(key.Conversation, f.partitions) == ids.Partition(in.GetPartition()) {
			all = append(all, refusal)
		}
	}
	slices.SortFunc(all, func(a, b *historyv1.Refusal) int {
		return CompareKeys(source.KeyOfProto(a.GetCommand()), source.KeyOfProto(b.GetCommand()))
	})
	n := min(int(in.GetLimit()), len(all))
	return &historyv1.ListRefusalsResponse{Refusals: all[:n], More: n < len(all)}, nil
}

// CompareKeys orders command keys.
func CompareKeys(a, b source.CommandKey) int {
	return cmp.Or(cmp.Compare(a.Conversation, b.Conversation), cmp.Compare(a.Sender, b.Sender), cmp.Compare(a.Command, b.Command))
}

// GetInstallation implements the history service.
func (f *History) GetInstallation(context.Context, *historyv1.GetInstallationRequest, ...grpc.CallOption) (*historyv1.GetInstallationResponse, error) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	return &historyv1.GetInstallationResponse{Partitions: uint32(f.partitions), Level: f.Level}, nil
}

// RaiseLevel implements the history service.
func (f *History) RaiseLevel(_ context.Context, in *historyv1.RaiseLevelRequest, _ ...grpc.CallOption) (*historyv1.RaiseLevelResponse, error) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	if in.GetLevel() < f.Level {
		return nil, status.Error(codes.FailedPrecondition, "the level never falls")
	}
	f.Level = in.GetLevel()
	return &historyv1.RaiseLevelResponse{Level: f.Level}, nil
}

// MarkBackup implements the history service.
func (f *History) MarkBackup(_ context.Context, in *historyv1.MarkBackupRequest, _ ...grpc.CallOption) (*historyv1.MarkBackupResponse, error) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	answer := &historyv1.MarkBackupResponse{Marks: in.GetMarks()}
	if len(in.GetMarks()) == 0 {
		for p, mark := range f.Watermarks {
			answer.Marks = append(answer.Marks, &historyv1.BackupMark{Partition: p, Watermark: mark})
		}
	}
	for _, mark := range answer.GetMarks() {
		f.Backups[mark.GetPartition()] = mark.GetWatermark()
	}
	return answer, nil
}

// ListLeases implements the history service.
func (f *History) ListLeases(context.Context, *historyv1.ListLeasesRequest, ...grpc.CallOption) (*historyv1.ListLeasesResponse, error) {
	f.Leases.Mu.Lock()
	defer f.Leases.Mu.Unlock()
	answer := &historyv1.ListLeasesResponse{}
	for worker := range f.Leases.Workers {
		answer.Workers = append(answer.Workers, &historyv1.Worker{Worker: worker, LiveForMs: 1000})
	}
	return answer, nil
}

// MovePartition implements the history service.
func (f *History) MovePartition(_ context.Context, in *historyv1.MovePartitionRequest, _ ...grpc.CallOption) (*historyv1.MovePartitionResponse, error) {
	f.Leases.MoveTo(ids.Partition(in.GetPartition()), in.GetWorker())
	return &historyv1.MovePartitionResponse{}, nil
}
