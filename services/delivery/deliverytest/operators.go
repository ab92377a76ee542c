package deliverytest

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// Heads implements the history service.
func (f *History) Heads(_ context.Context, in *historyv1.HeadsRequest, _ ...grpc.CallOption) (*historyv1.HeadsResponse, error) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	answer := &historyv1.HeadsResponse{}
	for _, id := range in.GetConversationIds() {
		if state := f.States[id]; state != nil {
			answer.Heads = append(answer.Heads, &historyv1.Head{ConversationId: id, Head: uint64(state.Head), HeadHash: state.HeadHash})
		}
	}
	return answer, nil
}

// Read implements the history service.
func (f *History) Read(_ context.Context, in *historyv1.ReadRequest, _ ...grpc.CallOption) (*historyv1.ReadResponse, error) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	log := f.Logs[in.GetConversationId()]
	from := min(int(in.GetAfter()), len(log))
	return &historyv1.ReadResponse{Events: log[from:min(from+int(in.GetLimit()), len(log))]}, nil
}

// GetDeadLetter implements the history service.
func (f *History) GetDeadLetter(_ context.Context, in *historyv1.GetDeadLetterRequest, _ ...grpc.CallOption) (*historyv1.GetDeadLetterResponse, error) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	if len(f.Letters) == 0 {
		return nil, status.Error(codes.NotFound, "there is no such dead letter")
	}
	return &historyv1.GetDeadLetterResponse{DeadLetter: &historyv1.StoredDeadLetter{DeadLetterId: in.GetDeadLetterId(), Letter: f.Letters[0]}}, nil
}

// DropDeadLetter implements the history service.
func (f *History) DropDeadLetter(context.Context, *historyv1.DropDeadLetterRequest, ...grpc.CallOption) (*historyv1.DropDeadLetterResponse, error) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	f.Letters = nil
	return &historyv1.DropDeadLetterResponse{}, nil
}
