package history

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/pkg/telemetry"

	"github.com/runnelhq/runnel/services/history/ledger"
	"github.com/runnelhq/runnel/services/history/store"
)

// Server is the history service over a store. It does not own the store: the caller that opened the store closes it.
type Server struct {
	historyv1.UnimplementedHistoryServiceServer

	store   store.Store
	log     *slog.Logger
	timeout time.Duration
	// recheck is the interval at which a waiting reader of the feed reads again without being woken.
	recheck time.Duration
	metrics *metrics
	ledger  *ledger.Ledger
	// closing is closed when waiting calls must return.
	closing   chan struct{}
	closeOnce sync.Once
}

var _ historyv1.HistoryServiceServer = (*Server)(nil)

// New makes the service. Its metrics are registered with registerer, once for each registerer.
func New(cfg Config, s Store, log *slog.Logger, registerer prometheus.Registerer) *Server {
	return &Server{
		store: s, log: log, timeout: cmp.Or(cfg.Timeout, defaultTimeout), recheck: store.FeedRecheck, metrics: newMetrics(registerer, s),
		ledger: ledger.New(cfg.EraseLedger), closing: make(chan struct{}),
	}
}

// Register adds the service and its policy to a server.
func (s *Server) Register(server rpc.Registrar) {
	server.Allow(Policy())
	historyv1.RegisterHistoryServiceServer(server, s)
}

// Checks are the conditions for readiness: the database can be read and written. If the erase ledger is not available,
// the service is only degraded, because only erasures need the ledger.
func (s *Server) Checks() map[string]telemetry.Check {
	return map[string]telemetry.Check{
		"database": s.store.Ping,
		"ledger":   func(context.Context) error { return telemetry.Degraded(s.ledger.Check()) },
	}
}

// Close ends the waiting calls, so that stopping the server need not wait for them. It also closes the erase ledger. All
// other calls continue.
func (s *Server) Close() error {
	s.closeOnce.Do(func() { close(s.closing) })
	return s.ledger.Close()
}

// do runs one call: it checks the request, calls the store, measures, and translates the error.
func do[T any](ctx context.Context, s *Server, op *operation, invalid error, call func(ctx context.Context) (T, error)) (T, error) {
	return doFor(ctx, s, op, s.timeout, invalid, call)
}

// doFor is do with its own time limit.
func doFor[T any](
	ctx context.Context, s *Server, op *operation, timeout time.Duration, invalid error, call func(ctx context.Context) (T, error),
) (T, error) {
	var none T
	if invalid != nil {
		return none, s.refuse(ctx, op, invalid)
	}
	begin := time.Now()
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	answer, err := call(limited)
	op.seconds.Observe(time.Since(begin).Seconds())
	if err != nil {
		return none, s.refuse(ctx, op, err)
	}
	return answer, nil
}

// Append commits one batch of a partition completely, or not at all.
func (s *Server) Append(ctx context.Context, request *historyv1.AppendRequest) (*historyv1.AppendResponse, error) {
	timeout := s.timeout
	if conversation.HasErasure(request.GetEffects()) {
		timeout = max(timeout, store.ErasureTimeout)
	}
	return doFor(ctx, s, s.metrics.append, timeout, s.checkAppend(request), func(ctx context.Context) (*historyv1.AppendResponse, error) {
		present := request.GetExpected()
		if store.BugNoWatermarkCheck {
			// With this bug, no other check compares the watermarks, so only this check shows its effect.
			present, _ = s.store.Watermark(ctx, ids.Partition(request.GetPartition()))
		}
		if err := s.recordErasures(ctx, request); err != nil {
			return nil, err
		}
		response, err := s.store.Append(ctx, withCleanReasons(request))
		switch {
		case err != nil:
			return nil, err
		case len(response.GetDuplicates()) > 0:
			s.metrics.duplicates.Add(float64(len(response.GetDuplicates())))
		default:
			s.metrics.appendEvents.Observe(float64(len(request.GetEvents())))
			s.metrics.deadLetters.Add(float64(len(request.GetDeadLetters())))
			s.metrics.refusals.Add(float64(len(request.GetRefusals())))
			s.reportRewind(ctx, request, present)
		}
		return response, nil
	})
}

// reportRewind warns operators that a watermark went back: the same commands will be read again. This is right only
// directly after the broker has lost acknowledged commands.
func (s *Server) reportRewind(ctx context.Context, request *historyv1.AppendRequest, present *historyv1.Watermark) {
	next := request.GetNext()
	if next.GetStream() == present.GetStream() && next.GetSequence() < present.GetSequence() {
		s.metrics.rewinds.Inc()
		s.log.WarnContext(ctx, "a watermark went back", "partition", request.GetPartition(), "from", present.GetSequence(), "to", next.GetSequence())
	}
}

// GetWatermark returns the watermark of a partition.
func (s *Server) GetWatermark(ctx context.Context, request *historyv1.GetWatermarkRequest) (*historyv1.GetWatermarkResponse, error) {
	return do(ctx, s, s.metrics.watermark, s.checkPartition("partition", ids.Partition(request.GetPartition())), func(ctx context.Context) (*historyv1.GetWatermarkResponse, error) {
		watermark, err := s.store.Watermark(ctx, ids.Partition(request.GetPartition()))
		if err != nil {
			return nil, err
		}
		backup, err := s.store.BackupMark(ctx, ids.Partition(request.GetPartition()))
		return &historyv1.GetWatermarkResponse{Watermark: watermark, Backup: backup}, err
	})
}

// Lease renews, releases and claims the leases of one worker.
func (s *Server) Lease(ctx context.Context, request *historyv1.LeaseRequest) (*historyv1.LeaseResponse, error) {
	return do(ctx, s, s.metrics.lease, s.checkLease(request), func(ctx context.Context) (*historyv1.LeaseResponse, error) {
		return s.store.Lease(ctx, request)
	})
}

// GetConversations returns the states that apply needs. If the conversations have too many members for one answer, it
// returns RESOURCE_EXHAUSTED; the caller then requests fewer conversations at a time.
func (s *Server) GetConversations(ctx context.Context, request *historyv1.GetConversationsRequest) (*historyv1.GetConversationsResponse, error) {
	return do(ctx, s, s.metrics.conversations, checkConversations(request.GetConversationIds()), func(ctx context.Context) (*historyv1.GetConversationsResponse, error) {
		states, err := s.store.Conversations(ctx, request.GetConversationIds())
		return &historyv1.GetConversationsResponse{Conversations: states}, err
	})
}

// FindCommands returns the events of commands. If they are too large for one answer, it returns RESOURCE_EXHAUSTED; the
// caller then requests fewer at a time.
func (s *Server) FindCommands(ctx context.Context, request *historyv1.FindCommandsRequest) (*historyv1.FindCommandsResponse, error) {
	return do(ctx, s, s.metrics.commands, checkCommands(request.GetCommands()), func(ctx context.Context) (*historyv1.FindCommandsResponse, error) {
		events, err := s.store.Commands(ctx, request.GetCommands())
		for _, event := range events {
			s.reportDamage(ctx, event)
		}
		return &historyv1.FindCommandsResponse{Events: events}, err
	})
}

// Read returns a stretch of a log.
func (s *Server) Read(ctx context.Context, request *historyv1.ReadRequest) (*historyv1.ReadResponse, error) {
	return do(ctx, s, s.metrics.read, checkRead(ctx, request), func(ctx context.Context) (*historyv1.ReadResponse, error) {
		page, err := s.store.Read(ctx, request)
		for _, event := range page.GetEvents() {
			s.reportDamage(ctx, event)
		}
		return page, err
	})
}

// ListConversations returns the conversations that a user is a member of now.
func (s *Server) ListConversations(ctx context.Context, request *historyv1.ListConversationsRequest) (*historyv1.ListConversationsResponse, error) {
	invalid := checkUser("user_id", request.GetUserId())
	if invalid == nil && request.GetAfter() != "" {
		invalid = checkConversation("after", request.GetAfter())
	}
	if invalid == nil {
		invalid = checkConversations(request.GetConversationIds())
	}
	if invalid == nil {
		invalid = checkLimit(request.GetLimit())
	}
	return do(ctx, s, s.metrics.listConversations, invalid, func(ctx context.Context) (*historyv1.ListConversationsResponse, error) {
		return s.store.ListConversations(ctx, request)
	})
}

// ListMembers returns the current members with their cursors.
func (s *Server) ListMembers(ctx context.Context, request *historyv1.ListMembersRequest) (*historyv1.ListMembersResponse, error) {
	invalid := checkConversation("conversation_id", request.GetConversationId())
	if invalid == nil {
		invalid = checkViewer(ctx, request.GetViewer())
	}
	if invalid == nil {
		invalid = checkOptionalUser("after", request.GetAfter())
	}
	if invalid == nil {
		invalid = checkLimit(request.GetLimit())
	}
	return do(ctx, s, s.metrics.listMembers, invalid, func(ctx context.Context) (*historyv1.ListMembersResponse, error) {
		return s.store.ListMembers(ctx, request)
	})
}

// Heads returns the newest seq of conversations.
func (s *Server) Heads(ctx context.Context, request *historyv1.HeadsRequest) (*historyv1.HeadsResponse, error) {
	return do(ctx, s, s.metrics.heads, checkConversations(request.GetConversationIds()), func(ctx context.Context) (*historyv1.HeadsResponse, error) {
		heads, err := s.store.Heads(ctx, request.GetConversationIds())
		return &historyv1.HeadsResponse{Heads: heads}, err
	})
}

// SaveCursors moves cursors forward.
func (s *Server) SaveCursors(ctx context.Context, request *historyv1.SaveCursorsRequest) (*historyv1.SaveCursorsResponse, error) {
	return do(ctx, s, s.metrics.saveCursors, checkCursors(request.GetUpdates()), func(ctx context.Context) (*historyv1.SaveCursorsResponse, error) {
		return &historyv1.SaveCursorsResponse{}, s.store.SaveCursors(ctx, request.GetUpdates())
	})
}
