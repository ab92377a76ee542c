package delivery

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/nats-io/nats.go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	deliveryv1 "github.com/runnelhq/runnel/proto/runnel/delivery/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/commands"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/pkg/telemetry"
)

// Register adds the DeliveryService to a gRPC server.
func (s *Service) Register(server rpc.Registrar) {
	server.Allow(Policy())
	deliveryv1.RegisterDeliveryServiceServer(server, s)
}

var errNotRunning = status.Error(codes.Unavailable, "this worker is not running; ask another one")

// Do puts a command into its partition's stream and waits for its outcome; see broker.Submitter.Do. It returns an error
// unless Run is running.
func (s *Service) Do(ctx context.Context, command *brokerv1.Command, header nats.Header) (*conversationv1.Outcome, error) {
	s.mu.Lock()
	submitter := s.submitter
	s.mu.Unlock()
	if submitter == nil {
		return nil, errNotRunning
	}
	return submitter.Do(ctx, command, header)
}

// Submit handles a command of a service like a command of a client: it puts the command into the stream, whichever worker
// owns the partition. Therefore the order of all commands of a conversation is the order of the stream.
func (s *Service) Submit(ctx context.Context, request *deliveryv1.SubmitRequest) (*deliveryv1.SubmitResponse, error) {
	made, err := commandOf(request)
	if err != nil {
		return nil, err
	}
	if !s.installation.admits(ctx, conversation.Level(made.GetLevel())) {
		return nil, status.Errorf(codes.FailedPrecondition,
			"body: needs protocol level %d; raise the installation's with runnel admin level --raise %d", made.GetLevel(), made.GetLevel())
	}
	outcome, err := s.Do(ctx, made, telemetry.InjectHeader(ctx, nil))
	switch {
	case errors.Is(err, errNotRunning):
		return nil, errNotRunning
	case errors.Is(err, broker.ErrBusy):
		return nil, status.Error(codes.ResourceExhausted, "too many commands are under way; try again later")
	case errors.Is(err, broker.ErrConflict):
		return &deliveryv1.SubmitResponse{Outcome: &conversationv1.Outcome{
			ConversationId: made.GetConversationId(), CommandId: made.GetCommandId(),
			Error: &conversationv1.Error{
				Code: conversationv1.ErrorCode_ERROR_CODE_IDEMPOTENCY_CONFLICT, Field: "command_id",
				Message: "the command id is in use with another body; choose a new id for a new command",
			},
		}}, nil
	case err != nil && ctx.Err() != nil:
		return nil, status.Error(status.FromContextError(ctx.Err()).Code(),
			"it is not known whether the command was committed; send it again with the same command id")
	case err != nil:
		return nil, status.Error(codes.Internal, "the command could not be sent")
	case outcome.GetError().GetCode() == conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE:
		return nil, status.Error(codes.Unavailable, outcome.GetError().GetMessage())
	}
	return &deliveryv1.SubmitResponse{Outcome: outcome}, nil
}

// commandOf checks a request and returns its command. The error names the invalid field.
func commandOf(request *deliveryv1.SubmitRequest) (*brokerv1.Command, error) {
	if !conversation.ValidUser(request.GetSender()) {
		return nil, status.Error(codes.InvalidArgument, "sender: "+conversation.UserRule)
	}
	if conversation.HasUnknownFields(request.GetBody().ProtoReflect()) {
		return nil, status.Error(codes.InvalidArgument, "body: has a field that this version does not know")
	}
	made, refused := commands.Make(commands.Request{
		Sender: ids.User(request.GetSender()), ConversationID: ids.Conversation(request.GetConversationId()), CommandID: ids.Command(request.GetCommandId()), Body: request.GetBody(),
	}, conversation.MaxLevel()) // Submit limits it to the installation's level
	if refused != nil {
		return nil, status.Error(codes.InvalidArgument, refused.GetField()+": "+refused.GetMessage())
	}
	return made, nil
}

// Explain returns what this worker has recorded about the commit of one event. It reads only memory and loads nothing.
func (s *Service) Explain(_ context.Context, request *deliveryv1.ExplainRequest) (*deliveryv1.ExplainResponse, error) {
	id := ids.Conversation(request.GetConversationId())
	if !conversation.ValidID(string(id)) {
		return nil, status.Error(codes.InvalidArgument, "conversation_id: must be d or g and 26 digits 0-9 a-v")
	}
	if request.GetSeq() == 0 {
		return nil, status.Error(codes.InvalidArgument, "seq: begins with 1")
	}
	partition := conversation.Partition(id, s.deps.Broker.Partitions)
	answer := &deliveryv1.ExplainResponse{Worker: s.worker, Partition: uint32(partition)}
	s.recorder.Explain(id, ids.Seq(request.GetSeq()), answer)
	s.mu.Lock()
	worker := s.workers[partition]
	s.mu.Unlock()
	if worker != nil {
		answer.Owner = true
		answer.Cursors = worker.Cursors(id)
	}
	return answer, nil
}

// ListPartitions returns the partitions that this worker owns.
func (s *Service) ListPartitions(context.Context, *deliveryv1.ListPartitionsRequest) (*deliveryv1.ListPartitionsResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := &deliveryv1.ListPartitionsResponse{Worker: s.worker}
	for _, p := range slices.Sorted(maps.Keys(s.workers)) {
		answer.Partitions = append(answer.Partitions, s.workers[p].Describe())
	}
	return answer, nil
}
