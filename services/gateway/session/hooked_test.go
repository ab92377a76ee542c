package session

import (
	"context"
	"sync"
	"testing"

	"google.golang.org/grpc"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/gateway/gatewaytest"
)

// hooked is the store, with a function that runs once right before or after its next answer of a kind: between a session's
// read of the store and what it does with the result.
type hooked struct {
	*gatewaytest.Store

	mu                                                                          sync.Mutex
	afterList, afterAsked, afterFind, beforeHeads, ahead, beforePast, afterPast func()
	revocations                                                                 func(since int64) (*historyv1.GetRevocationsResponse, error)                              // nil: the store's answer is returned
	compare                                                                     func(*historyv1.CompareMembershipsRequest) (*historyv1.CompareMembershipsResponse, error) // nil: the store answers
}

// once registers a function for one of these moments.
func (h *hooked) once(moment *func(), happen func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	*moment = happen
}

func (h *hooked) reach(moment *func()) {
	h.mu.Lock()
	happen := *moment
	*moment = nil
	h.mu.Unlock()
	if happen != nil {
		happen()
	}
}

func (h *hooked) ListConversations(ctx context.Context, r *historyv1.ListConversationsRequest, o ...grpc.CallOption) (*historyv1.ListConversationsResponse, error) {
	answer, err := h.Store.ListConversations(ctx, r, o...)
	h.reach(&h.afterList)
	return answer, err
}

func (h *hooked) CompareMemberships(ctx context.Context, r *historyv1.CompareMembershipsRequest, o ...grpc.CallOption) (*historyv1.CompareMembershipsResponse, error) {
	if h.compare != nil {
		return h.compare(r)
	}
	return h.Store.CompareMemberships(ctx, r, o...)
}

func (h *hooked) FindMemberships(ctx context.Context, r *historyv1.FindMembershipsRequest, o ...grpc.CallOption) (*historyv1.FindMembershipsResponse, error) {
	answer, err := h.Store.FindMemberships(ctx, r, o...)
	h.reach(&h.afterFind)
	return answer, err
}

func (h *hooked) GetRevocations(ctx context.Context, r *historyv1.GetRevocationsRequest, o ...grpc.CallOption) (*historyv1.GetRevocationsResponse, error) {
	if r.GetUserId() == "" && h.revocations != nil {
		return h.revocations(r.GetSinceMs())
	}
	answer, err := h.Store.GetRevocations(ctx, r, o...)
	if r.GetUserId() != "" {
		h.reach(&h.afterAsked)
	}
	return answer, err
}

func (h *hooked) Heads(ctx context.Context, r *historyv1.HeadsRequest, o ...grpc.CallOption) (*historyv1.HeadsResponse, error) {
	h.reach(&h.beforeHeads)
	return h.Store.Heads(ctx, r, o...)
}

// forAll reports whether a room reads for all its subscribers, rather than for one: then it reads longer pages.
func forAll(r *historyv1.ReadRequest) bool { return r.GetLimit() > 100 }

// Read runs the function when a room reads for all subscribers, not when it reads for one.
func (h *hooked) Read(ctx context.Context, r *historyv1.ReadRequest, o ...grpc.CallOption) (*historyv1.ReadResponse, error) {
	if forAll(r) {
		h.reach(&h.ahead)
	} else {
		h.reach(&h.beforePast)
	}
	answer, err := h.Store.Read(ctx, r, o...)
	if !forAll(r) {
		h.reach(&h.afterPast)
	}
	return answer, err
}

// contextOf returns a context that ends with the test.
func contextOf(t *testing.T) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithCancel(context.WithoutCancel(t.Context()))
}
