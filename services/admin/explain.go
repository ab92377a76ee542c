package admin

import (
	"context"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	deliveryv1 "github.com/runnelhq/runnel/proto/runnel/delivery/v1"
	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
)

// facts contains all known data about one event and one user. The verdict depends only on facts.
type facts struct {
	user         ids.User
	conversation ids.Conversation
	seq, head    ids.Seq

	// event is the event's header; nil if the event is not committed.
	event *conversationv1.Event
	// visible means that the user was a member at that seq. joined is the seq of the event that last made the user a
	// member; 0 if the user is not a member now. last is the newest seq that the user may see.
	visible, member bool
	joined, last    ids.Seq
	// cursor is the user's cursor in the store; nil if the user is not a member.
	cursor *conversationv1.Cursor

	// partition is the state of the conversation's partition, if the event is not committed.
	partition *adminv1.Partition
	gateways  []*gatewayv1.ExplainResponse
	// settledMs is the time since which no gateway has disappeared. The records of a gateway that has disappeared are
	// lost.
	settledMs int64
	workers   []*deliveryv1.ExplainResponse
	missing   []*adminv1.Missing
}

// person returns the user's name that operators know: the name that the token issuer uses.
func (f *facts) person() string { return conversation.OriginalUser(f.user) }

// Explain returns why a user did or did not get an event.
func (s *Server) Explain(ctx context.Context, request *adminv1.ExplainRequest) (*adminv1.ExplainResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	user, err := userNamed("user_id", request.GetUserId())
	if err != nil {
		return nil, err
	}
	if request.GetSeq() == 0 {
		return nil, invalid("seq: begins with 1")
	}
	f := &facts{user: ids.User(user), conversation: ids.Conversation(request.GetConversationId()), seq: ids.Seq(request.GetSeq())}
	head, err := s.head(ctx, f.conversation)
	if err != nil {
		return nil, err
	}
	if f.head = ids.Seq(head.GetHead()); f.seq > f.head {
		err = s.notYet(ctx, f)
	} else if err = s.stored(ctx, f); err == nil {
		err = s.remembered(ctx, f)
	}
	if err != nil {
		return nil, err
	}
	return f.explain(), nil
}

// notYet finds out why an event is not committed.
func (s *Server) notYet(ctx context.Context, f *facts) error {
	partitions, err := s.ListPartitions(ctx, &adminv1.ListPartitionsRequest{})
	if err != nil {
		return err
	}
	f.partition = partitions.GetPartitions()[conversation.Partition(f.conversation, s.Partitions)]
	f.missing = partitions.GetMissing()
	return nil
}

// stored reads the facts from the store.
func (s *Server) stored(ctx context.Context, f *facts) error {
	log, err := s.History.Read(ctx, &historyv1.ReadRequest{ConversationId: string(f.conversation), After: uint64(f.seq - 1), Limit: 1})
	if err != nil {
		return err
	}
	for _, event := range log.GetEvents() {
		if ids.Seq(event.GetSeq()) == f.seq {
			f.event = &conversationv1.Event{
				ConversationId: event.GetConversationId(), Seq: event.GetSeq(), TimeMs: event.GetTimeMs(), Sender: event.GetSender(),
				CommandId: event.GetCommandId(), Kind: event.GetKind(), Commitment: event.GetCommitment(), PrevHash: event.GetPrevHash(),
				Hash: event.GetHash(), Format: event.GetFormat(), HeaderExtra: event.GetHeaderExtra(),
			}
		}
	}
	seen, err := s.History.Read(ctx, &historyv1.ReadRequest{ConversationId: string(f.conversation), Viewer: string(f.user), After: uint64(f.seq - 1), Limit: 1})
	switch {
	case isNotFound(err):
		return nil // the user was never a member
	case err != nil:
		return err
	}
	f.visible = slices.ContainsFunc(seen.GetEvents(), func(event *conversationv1.Event) bool { return ids.Seq(event.GetSeq()) == f.seq })
	f.member, f.last = seen.GetMember(), ids.Seq(seen.GetHead())
	if !f.member {
		return nil
	}
	mine, err := s.History.ListConversations(ctx, &historyv1.ListConversationsRequest{
		UserId: string(f.user), After: string(conversation.Before(f.conversation)), Limit: 1,
	})
	if err != nil {
		return err
	}
	for _, summary := range mine.GetConversations() {
		if ids.Conversation(summary.GetConversationId()) == f.conversation {
			f.joined, f.cursor = ids.Seq(summary.GetJoinedSeq()), summary.GetCursor()
		}
	}
	return nil
}

// remembered queries the records of all gateways and workers.
func (s *Server) remembered(ctx context.Context, f *facts) error {
	var gateways []from[gatewayv1.ExplainResponse]
	var workers []from[deliveryv1.ExplainResponse]
	var silentGateways, silentWorkers []*adminv1.Missing
	group, asking := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		gateways, silentGateways, err = askAll[gatewayv1.ExplainResponse](asking, s, serviceGateway, "Explain",
			&gatewayv1.ExplainRequest{UserId: string(f.user), ConversationId: string(f.conversation), Seq: uint64(f.seq)})
		return err
	})
	group.Go(func() (err error) {
		workers, silentWorkers, err = askAll[deliveryv1.ExplainResponse](asking, s, serviceDelivery, "Explain",
			&deliveryv1.ExplainRequest{ConversationId: string(f.conversation), Seq: uint64(f.seq)})
		return err
	})
	if err := group.Wait(); err != nil {
		return err
	}
	f.settledMs = s.Fleet.Settled(serviceGateway).UnixMilli()
	for _, gateway := range gateways {
		f.gateways = append(f.gateways, gateway.said)
	}
	for _, worker := range workers {
		// Only this user's cursor is relevant, so the cursors of other members are removed.
		worker.said.Cursors = slices.DeleteFunc(worker.said.GetCursors(), func(c *conversationv1.Cursor) bool { return ids.User(c.GetUserId()) != f.user })
		f.workers = append(f.workers, worker.said)
	}
	f.missing = slices.Concat(silentGateways, silentWorkers)
	slices.SortFunc(f.missing, func(a, b *adminv1.Missing) int { return strings.Compare(a.GetInstance(), b.GetInstance()) })
	return nil
}

// explain builds the answer from the facts.
func (f *facts) explain() *adminv1.ExplainResponse {
	found := f.verdict()
	response := &adminv1.ExplainResponse{
		Verdict: found.verdict, Summary: found.summary, FilledLater: found.filledLater, Retries: f.retries(),
		Event: f.event, Cursor: f.cursor, Head: uint64(f.head),
		Gateways: f.gateways, Workers: f.workers, Missing: f.missing, Timeline: f.timeline(),
	}
	response.Worker, response.Commit = f.commit()
	return response
}

// commit returns the worker that committed the event, and the record of the commit. The record comes from that worker if
// it has one, otherwise from a gateway.
func (f *facts) commit() (worker string, commit *deliveryv1.Commit) {
	for _, w := range f.workers {
		if w.GetCommit() != nil {
			return w.GetWorker(), w.GetCommit()
		}
	}
	for _, g := range f.gateways {
		if g.GetWorker() != "" {
			return g.GetWorker(), &deliveryv1.Commit{CommittedNs: g.GetCommittedNs()}
		}
	}
	return "", nil
}
