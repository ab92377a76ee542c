// Package admin is the AdminService: operators' queries about an installation, and operators' commands to it. It lists
// connections and partitions, explains why a user did or did not get an event, closes connections, revokes tokens, moves
// partitions and retries dead letters.
//
// It keeps no state, so any process may mount it; runnel-delivery and standalone do. It combines data of the store with
// the answers that gateways and workers return over NATS within two seconds; instances that did not answer are listed as
// missing. It decides nothing about messages. It returns no content of users except the body of a requested dead letter.
//
//	connections.go    connections and users
//	conversations.go  conversations and members; verify.go their hash chains
//	partitions.go     owners of partitions, and moves
//	deadletters.go    commands that became dead letters
//	level.go          the protocol level
//	erase.go          erasure of content; backup.go: backups
//	explain.go        facts about one event and one user ─▶ verdict.go: the deciding fact, pure ─▶ timeline.go
package admin

import (
	"context"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/bus"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/fleet"
	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/pkg/telemetry"
)

// Deps are the dependencies of the service. All are required.
type Deps struct {
	// History is the store.
	History historyv1.HistoryServiceClient
	// Fleet queries gateways and workers; the caller runs it.
	Fleet *fleet.Fleet
	// Submit puts a command into its partition's stream and waits for its outcome; see broker.Submitter.Do.
	Submit func(ctx context.Context, command *brokerv1.Command, header nats.Header) (*conversationv1.Outcome, error)
	// Bus carries notices to gateways and workers.
	Bus bus.Bus
	// Partitions is the number of partitions.
	Partitions int
	Log        *slog.Logger
}

// Server is the AdminService. It is safe for concurrent use.
type Server struct {
	adminv1.UnimplementedAdminServiceServer

	Deps
}

// New makes a server.
func New(deps Deps) *Server { return &Server{Deps: deps} }

// Register adds the service to a gRPC server.
func (s *Server) Register(server rpc.Registrar) {
	server.Allow(Policy())
	adminv1.RegisterAdminServiceServer(server, s)
}

const (
	serviceGateway, serviceDelivery = "gateway", "delivery"

	// callTimeout is the time limit of a call without a deadline. gatherTimeout is the time limit for the answers of
	// instances.
	callTimeout   = 30 * time.Second
	gatherTimeout = 2 * time.Second

	// flushTimeout is the time limit for sending a notice to NATS.
	flushTimeout = 500 * time.Millisecond
)

// gather limits the wait for answers. It reserves a part of the caller's deadline, so that an incomplete answer still
// arrives before the deadline.
func gather(ctx context.Context, most time.Duration) (context.Context, context.CancelFunc) {
	if deadline, set := ctx.Deadline(); set {
		most = min(most, time.Until(deadline)*4/5)
	}
	return context.WithTimeout(ctx, most)
}

// from is the answer of one instance.
type from[T any] struct {
	instance string
	said     *T
}

// askAll queries all instances of a service, and returns the answers by name. missing lists the instances that did not
// answer, or that answered with an error other than NOT_FOUND. The error has a gRPC code.
func askAll[T any, M interface {
	*T
	proto.Message
}](ctx context.Context, s *Server, service, method string, request proto.Message) ([]from[T], []*adminv1.Missing, error) {
	ctx, cancel := gather(ctx, gatherTimeout)
	defer cancel()
	answers, err := fleet.AskAll[T, M](ctx, s.Fleet, service, method, request)
	if err != nil {
		s.Log.WarnContext(ctx, "could not query instances over NATS", "asked", service, "method", method, "error", err)
		return nil, nil, status.Errorf(codes.Unavailable, "the %s instances cannot be queried over NATS", service)
	}
	var found []from[T]
	var missing []*adminv1.Missing
	for _, answer := range answers {
		switch {
		case answer.Err == nil:
			found = append(found, from[T]{answer.Instance, answer.Response})
		case status.Code(answer.Err) != codes.NotFound:
			missing = append(missing, &adminv1.Missing{Instance: answer.Instance, Service: service, Reason: reason(answer.Err)})
		}
	}
	return found, missing, nil
}

// reason returns the readable text of an error.
func reason(err error) string {
	if message := status.Convert(err).Message(); message != "" {
		return message
	}
	return status.Code(err).String()
}

// acted logs an action of an operator. These log lines are never suppressed.
func (s *Server) acted(ctx context.Context, what string, args ...any) {
	s.Log.InfoContext(telemetry.Unlimited(ctx), "an operator's action", append([]any{"did", what, "caller", rpc.Caller(ctx)}, args...)...)
}

// notify publishes a notice and flushes it. If the notice is lost, its receivers still learn of the change, because they
// also check periodically.
func (s *Server) notify(ctx context.Context, subject string, data []byte) {
	err := s.Bus.PublishMsg(&nats.Msg{Subject: subject, Data: data})
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, flushTimeout)
		defer cancel()
		err = s.Bus.FlushWithContext(ctx)
	}
	if err != nil {
		s.Log.WarnContext(ctx, "a notice may not have been sent", "subject", subject, "error", err)
	}
}

// userNamed returns the id of the user that an operator named, either by the user id or by the name that the token issuer
// uses. Every method with a user parameter calls it.
func userNamed(field, typed string) (string, error) {
	user, err := conversation.ParseUser(typed)
	if err != nil {
		return "", invalid(field + ": " + err.Error())
	}
	return string(user), nil
}

func invalid(message string) error { return status.Error(codes.InvalidArgument, message) }

func isNotFound(err error) bool { return status.Code(err) == codes.NotFound }
