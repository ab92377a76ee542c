package requests_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/gateway/flight"
	"github.com/runnelhq/runnel/services/gateway/gatewaytest"
	"github.com/runnelhq/runnel/services/gateway/metrics"
	"github.com/runnelhq/runnel/services/gateway/requests"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const groupID = gatewaytest.GroupID

// history records its calls, and returns what the test has set.
type history struct {
	err error

	read          *historyv1.ReadRequest
	readMessages  *historyv1.ReadMessagesRequest
	conversations *historyv1.ListConversationsRequest
	members       *historyv1.ListMembersRequest
	counted       []*historyv1.CountMembershipsRequest

	page     *historyv1.ReadResponse
	messages *historyv1.ReadMessagesResponse
	list     *historyv1.ListConversationsResponse
	listed   *historyv1.ListMembersResponse
	counts   []*historyv1.MembershipCount
}

func (h *history) CountMemberships(_ context.Context, request *historyv1.CountMembershipsRequest, _ ...grpc.CallOption) (*historyv1.CountMembershipsResponse, error) {
	h.counted = append(h.counted, request)
	return &historyv1.CountMembershipsResponse{Counts: h.counts}, h.err
}

func (h *history) Read(_ context.Context, request *historyv1.ReadRequest, _ ...grpc.CallOption) (*historyv1.ReadResponse, error) {
	h.read = request
	return h.page, h.err
}

func (h *history) ReadMessages(_ context.Context, request *historyv1.ReadMessagesRequest, _ ...grpc.CallOption) (*historyv1.ReadMessagesResponse, error) {
	h.readMessages = request
	return h.messages, h.err
}

func (h *history) ListConversations(_ context.Context, request *historyv1.ListConversationsRequest, _ ...grpc.CallOption) (*historyv1.ListConversationsResponse, error) {
	h.conversations = request
	return h.list, h.err
}

func (h *history) ListMembers(_ context.Context, request *historyv1.ListMembersRequest, _ ...grpc.CallOption) (*historyv1.ListMembersResponse, error) {
	h.members = request
	return h.listed, h.err
}

// asked reports whether history was called.
func (h *history) asked() bool {
	return h.read != nil || h.readMessages != nil || h.conversations != nil || h.members != nil
}

// stage is a handler with a history service and a broker that the test controls.
type stage struct {
	*requests.Handler

	t         *testing.T
	history   *history
	metrics   *metrics.Metrics
	level     conversation.Level
	refuse    error // of the broker
	submitted []broker.Submission
}

// limited is newStage with limits on adding members.
func limited(t *testing.T, adding requests.Adding) *stage {
	t.Helper()
	return newStageWith(t, nil, adding)
}

func newStage(t *testing.T, tracer *flight.Tracer) *stage {
	t.Helper()
	return newStageWith(t, tracer, requests.Adding{})
}

func newStageWith(t *testing.T, tracer *flight.Tracer, adding requests.Adding) *stage {
	t.Helper()
	s := &stage{t: t, history: &history{}, metrics: metrics.New(prometheus.NewRegistry()), level: 1}
	if tracer == nil {
		tracer = flight.NewTracer(nil, 0)
	}
	s.Handler = requests.New(requests.Config{
		History: s.history, Level: func() conversation.Level { return s.level }, Partitions: 4, Metrics: s.metrics, Tracer: tracer,
		Adding: adding,
		Submit: func(submission broker.Submission) error {
			if s.refuse != nil {
				return s.refuse
			}
			s.submitted = append(s.submitted, submission)
			return nil
		},
	})
	return s
}

// ann returns a caller with an allowance for two commands.
func ann() *requests.Caller {
	return &requests.Caller{User: "ann", Commands: rate.NewLimiter(0, 2), Traces: rate.NewLimiter(rate.Inf, 1)}
}

// do parses and carries out a valid request.
func (s *stage) do(f *clientv1.ClientFrame, maxBytes int) (requests.Answer, error) {
	s.t.Helper()
	request, refused := s.Parse(f)
	require.Nil(s.t, refused)
	require.NotNil(s.t, request)
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	return request.Do(ctx, ann(), requests.Bounds{Bytes: maxBytes, EventBytes: maxBytes})
}

// answered returns the frame that a client receives, with the id of its request.
func (s *stage) answered(f *clientv1.ClientFrame, maxBytes int) *clientv1.ServerFrame {
	s.t.Helper()
	answer, err := s.do(f, maxBytes)
	require.NoError(s.t, err)
	return decode(s.t, answer, frame.Proto)
}

func decode(t *testing.T, answer requests.Answer, codec frame.Codec) *clientv1.ServerFrame {
	t.Helper()
	var decoded *clientv1.ServerFrame
	encoded := answer.Append(nil, codec, 7)
	require.NoError(t, frame.DecodeServer(codec, encoded, func(f *clientv1.ServerFrame) error {
		require.Nil(t, decoded, "one frame")
		decoded = f
		return nil
	}), "%s", encoded)
	require.Equal(t, uint64(7), decoded.GetId())
	return decoded
}

// waiter records what it receives about a submit.
type waiter struct {
	mu    sync.Mutex
	heard []string
}

func (w *waiter) Accepted(id uint64) { w.notef("accepted %d", id) }

func (w *waiter) Outcome(id uint64, conversationID ids.Conversation, outcome *conversationv1.Outcome, traceparent string) {
	w.notef("outcome %d %s %d %s", id, conversationID, outcome.GetSeq(), traceparent)
}

func (w *waiter) notef(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.heard = append(w.heard, fmt.Sprintf(format, args...))
}

func read(r *clientv1.Read) *clientv1.ClientFrame {
	return &clientv1.ClientFrame{Request: &clientv1.ClientFrame_Read{Read: r}}
}

func readMessages(r *clientv1.ReadMessages) *clientv1.ClientFrame {
	return &clientv1.ClientFrame{Request: &clientv1.ClientFrame_ReadMessages{ReadMessages: r}}
}

func listConversations(r *clientv1.ListConversations) *clientv1.ClientFrame {
	return &clientv1.ClientFrame{Request: &clientv1.ClientFrame_ListConversations{ListConversations: r}}
}

func listMembers(r *clientv1.ListMembers) *clientv1.ClientFrame {
	return &clientv1.ClientFrame{Request: &clientv1.ClientFrame_ListMembers{ListMembers: r}}
}

func protoEqual(t *testing.T, want, got proto.Message) {
	t.Helper()
	require.True(t, proto.Equal(want, got), "want %v\ngot %v", want, got)
}
