package e2e_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/delivery"
	"github.com/runnelhq/runnel/services/gateway"
)

// A fault at every hop of an event's path, and the operator's answer: the right hop, in the verdict and in words.

// explain asks why a user did or did not get an event.
func (c *clerk) explain(t *testing.T, user, id string, seq uint64) *adminv1.ExplainResponse {
	t.Helper()
	answer, err := c.Explain(t.Context(), &adminv1.ExplainRequest{UserId: user, ConversationId: id, Seq: seq})
	require.NoError(t, err)
	require.NotEmpty(t, answer.GetSummary())
	require.Nil(t, answer.GetEvent().GetBody(), "what somebody wrote is none of the operator's business")
	require.Empty(t, answer.GetEvent().GetSalt())
	return answer
}

// explained waits for a verdict: steps are recorded, and cursors moved, a moment after they happened.
func (c *clerk) explained(t *testing.T, user, id string, seq uint64, want adminv1.Verdict) *adminv1.ExplainResponse {
	t.Helper()
	var answer *adminv1.ExplainResponse
	require.Eventually(t, func() bool {
		answer = c.explain(t, user, id, seq)
		return answer.GetVerdict() == want
	}, patience, 10*time.Millisecond, "want %v", want)
	return answer
}

// lose makes the broker lose a conversation's live messages, until the returned function is called.
func (h *house) lose(id string) (stop func()) {
	h.t.Helper()
	account := h.nats.GlobalAccount()
	require.NoError(h.t, account.AddMapping(broker.LiveSubject(ids.Conversation(id)), "lost."+id))
	return func() { require.True(h.t, account.RemoveMapping(broker.LiveSubject(ids.Conversation(id)))) }
}

func happened(answer *adminv1.ExplainResponse) string {
	var what []string
	for _, entry := range answer.GetTimeline() {
		what = append(what, entry.GetWhat())
	}
	return strings.Join(what, "\n")
}

func TestExplainWhatWentWell(t *testing.T) {
	h := newHouse(t)
	c, _ := h.clerk(nil), h.clerk(nil)
	first, second := h.door(nil), h.door(nil)
	h.ready(c)
	id := h.newGroup("bob")
	bob := second.login(t, "bob")
	bob.seqs(1)
	h.say(id, text("hello"))
	bob.event(2)
	bob.ackTo(id, 2)
	answer := c.explained(t, "bob", id, 2, adminv1.Verdict_VERDICT_ACKNOWLEDGED)
	require.Eventually(t, func() bool {
		answer = c.explain(t, "bob", id, 2)
		return answer.GetCursor().GetDeliveredSeq() == 2 // the store has it as well
	}, patience, 10*time.Millisecond)
	require.Contains(t, answer.GetSummary(), "acknowledged at")
	require.Contains(t, answer.GetSummary(), second.ID())
	require.False(t, answer.GetFilledLater())
	require.Zero(t, answer.GetRetries())
	require.EqualValues(t, 2, answer.GetHead())
	require.Equal(t, "ann", answer.GetEvent().GetSender())
	require.NotEmpty(t, answer.GetWorker())
	require.Len(t, answer.GetGateways(), 2)
	require.Len(t, answer.GetWorkers(), 2)
	require.Empty(t, answer.GetMissing())
	commit := answer.GetCommit()
	require.NotZero(t, commit.GetSequence())
	require.LessOrEqual(t, commit.GetAcceptedNs(), commit.GetCommittedNs())
	require.Less(t, commit.GetCommittedNs(), commit.GetPublishedNs())
	for _, want := range []string{"accepted the command", "committed it", "published it to the gateways", "arrived live", "was queued", "was written", "was acknowledged", "cursor moved to 2"} {
		require.Contains(t, happened(answer), want)
	}
	require.Contains(t, c.explained(t, "ann", id, 2, adminv1.Verdict_VERDICT_ACKNOWLEDGED).GetSummary(), "their own")
	_, err := c.Explain(t.Context(), &adminv1.ExplainRequest{UserId: "bob", ConversationId: string(conversation.DirectID("no", "body")), Seq: 1})
	requireCode(t, codes.NotFound, err)
	for _, bad := range []*adminv1.ExplainRequest{
		{UserId: "bob", ConversationId: "x", Seq: 1}, {UserId: "bob", ConversationId: id}, {UserId: "", ConversationId: id, Seq: 1},
	} {
		_, err := c.Explain(t.Context(), bad)
		requireCode(t, codes.InvalidArgument, err)
	}
	first.stop() // a clean close: no one waits for it
	h.gateways--
	require.Len(t, c.explained(t, "bob", id, 2, adminv1.Verdict_VERDICT_ACKNOWLEDGED).GetGateways(), 1)
}

func TestExplainWhatIsNotCommitted(t *testing.T) {
	h := newHouse(t)
	store := &stalled{HistoryServiceClient: h.history}
	c := h.clerk(func(_ *delivery.Config, d *delivery.Deps) { d.History = store })
	h.door(nil)
	h.ready(c)
	id := h.newGroup("bob")
	answer := c.explained(t, "bob", id, 2, adminv1.Verdict_VERDICT_NOT_COMMITTED)
	require.Contains(t, answer.GetSummary(), "no client has sent it")
	require.Nil(t, answer.GetEvent())

	store.stall()
	sent := make(chan error, 1)
	go func() {
		_, err := h.send(t.Context(), "ann", id, "0192f3c0-0000-7000-8000-000000000001", text("waits"))
		sent <- err
	}()
	require.Eventually(t, func() bool {
		answer = c.explain(t, "bob", id, 2)
		return strings.Contains(answer.GetSummary(), "1 commands wait")
	}, patience, 10*time.Millisecond, "%v", answer)
	require.Equal(t, adminv1.Verdict_VERDICT_NOT_COMMITTED, answer.GetVerdict())
	require.Contains(t, answer.GetSummary(), c.name)
	store.resume()
	require.NoError(t, <-sent)
	c.explained(t, "bob", id, 2, adminv1.Verdict_VERDICT_OFFLINE)
}

// stalled is a store that accepts no append for a time.
type stalled struct {
	historyv1.HistoryServiceClient

	mu      sync.Mutex
	stalled bool
}

func (s *stalled) stall()  { s.set(true) }
func (s *stalled) resume() { s.set(false) }

func (s *stalled) set(to bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stalled = to
}

func (s *stalled) Append(ctx context.Context, in *historyv1.AppendRequest, opts ...grpc.CallOption) (*historyv1.AppendResponse, error) {
	s.mu.Lock()
	stalled := s.stalled
	s.mu.Unlock()
	if stalled {
		return nil, status.Error(codes.Unavailable, "stalled")
	}
	return s.HistoryServiceClient.Append(ctx, in, opts...)
}

// fatal is a store whose answers to appends do not reach the worker after some time: it has committed, and the worker does
// not know.
type fatal struct {
	historyv1.HistoryServiceClient

	mu        sync.Mutex
	dying     bool
	committed chan struct{}
}

func (f *fatal) Append(ctx context.Context, in *historyv1.AppendRequest, opts ...grpc.CallOption) (*historyv1.AppendResponse, error) {
	answer, err := f.HistoryServiceClient.Append(ctx, in, opts...)
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.dying {
		return answer, err
	}
	select {
	case f.committed <- struct{}{}:
	default:
	}
	return nil, status.Error(codes.Unavailable, "the answer is lost")
}

// The owner dies after the commit, before it publishes. Until there is another owner no client gets the event; then all
// clients do.
func TestExplainAnOwnerThatDied(t *testing.T) {
	h := newHouse(t)
	store := &fatal{HistoryServiceClient: h.history, committed: make(chan struct{}, 1)}
	owner := h.clerk(func(_ *delivery.Config, d *delivery.Deps) { d.History = store })
	d := h.door(nil)
	h.ready(owner)
	leases := &held{HistoryServiceClient: h.history}
	leases.hold()
	c := h.clerk(func(_ *delivery.Config, d *delivery.Deps) { d.History = leases })
	id := h.newGroup("bob")
	bob := d.login(t, "bob")
	bob.seqs(1)

	store.mu.Lock()
	store.dying = true
	store.mu.Unlock()
	sent := make(chan error, 1)
	go func() {
		_, err := h.send(t.Context(), "ann", id, "0192f3c0-0000-7000-8000-000000000001", text("committed, not told"))
		sent <- err
	}()
	<-store.committed
	owner.stop()
	answer := c.explained(t, "bob", id, 2, adminv1.Verdict_VERDICT_NOT_PUBLISHED)
	require.Contains(t, answer.GetSummary(), "has stopped")
	require.Empty(t, answer.GetWorker())
	require.Len(t, answer.GetWorkers(), 1)

	leases.release()
	bob.event(2)
	require.NoError(t, <-sent)
	bob.ackTo(id, 2)
	answer = c.explained(t, "bob", id, 2, adminv1.Verdict_VERDICT_ACKNOWLEDGED)
	require.NotZero(t, answer.GetWorkers()[0].GetRepublishedNs())
	require.Contains(t, happened(answer), "republished it")
}

// A live message is lost on its way to the gateway. The gateway detects that with the next event.
func TestExplainALostMessage(t *testing.T) {
	h := newHouse(t)
	c := h.clerk(nil)
	d := h.door(nil)
	h.ready(c)
	id := h.newGroup("bob")
	bob := d.login(t, "bob")
	bob.seqs(1)
	found := h.lose(id)
	h.say(id, text("lost"))
	answer := c.explained(t, "bob", id, 2, adminv1.Verdict_VERDICT_NOT_ROUTED)
	require.Contains(t, answer.GetSummary(), "published, and lost")
	require.Equal(t, c.name, answer.GetWorker())
	found()
	h.say(id, text("comes"))
	bob.event(3)
	answer = c.explained(t, "bob", id, 2, adminv1.Verdict_VERDICT_WRITTEN)
	require.True(t, answer.GetFilledLater())
	bob.ackTo(id, 3)
	answer = c.explained(t, "bob", id, 2, adminv1.Verdict_VERDICT_ACKNOWLEDGED)
	require.True(t, answer.GetFilledLater())
	require.Contains(t, happened(answer), "was found missing")
	require.False(t, c.explained(t, "bob", id, 3, adminv1.Verdict_VERDICT_ACKNOWLEDGED).GetFilledLater(), "this one arrived live")
}

// A client that reads nothing: first events are written to it, then its queue fills, then it is closed, and at last it
// reconnects.
func TestExplainAClientThatReadsNothing(t *testing.T) {
	h := newHouse(t)
	c := h.clerk(nil)
	d := h.doorWith(slowly, func(deps *gateway.Deps) { deps.Listener = narrowListener(t) })
	h.ready(c)
	id := h.newGroup("bob", "cem")
	slow, quick := dialNarrowly(t, "ws://"+d.Addr().String()+gateway.Path).connect("bob"), d.login(t, "cem")
	slow.seqs(1)
	quick.seqs(1)
	large := strings.Repeat("x", 8000)
	seq := uint64(1)
	say := func() {
		seq = h.say(id, text(large)).GetSeq()
		quick.event(seq) // so the gateway has received it
	}
	// Until the sockets are full: an event still waits when all other clients have the next one.
	answer, waiting := &adminv1.ExplainResponse{}, uint64(0)
	for answer.GetVerdict() != adminv1.Verdict_VERDICT_QUEUED {
		waiting = seq
		say()
		if d.queued(t, "bob") > uint64(len(large)) {
			answer = c.explain(t, "bob", id, waiting)
		}
	}
	require.Contains(t, answer.GetSummary(), "slow")
	for answer.GetVerdict() != adminv1.Verdict_VERDICT_SLOW_CLOSED {
		say()
		answer = c.explain(t, "bob", id, waiting)
	}
	require.Contains(t, answer.GetSummary(), "queue was full")
	c.explained(t, "cem", id, seq, adminv1.Verdict_VERDICT_WRITTEN)

	back := d.login(t, "bob", &clientv1.Position{ConversationId: id, Seq: 1})
	back.event(seq)
	back.ackTo(id, seq)
	answer = c.explained(t, "bob", id, seq, adminv1.Verdict_VERDICT_ACKNOWLEDGED)
	require.True(t, answer.GetFilledLater())
}

// queued returns how many bytes wait for a user's only connection.
func (d *door) queued(t *testing.T, user string) uint64 {
	t.Helper()
	list, err := d.Server().ListConnections(t.Context(), &gatewayv1.ListConnectionsRequest{UserId: user})
	require.NoError(t, err)
	require.Len(t, list.GetConnections(), 1)
	return list.GetConnections()[0].GetQueuedBytes()
}

func TestExplainAClientThatAcknowledgesNothing(t *testing.T) {
	h := newHouse(t)
	c := h.clerk(nil)
	patient := h.door(func(cfg *gateway.Config) { cfg.AckTimeout = time.Hour })
	d := h.door(func(cfg *gateway.Config) { cfg.AckTimeout, cfg.AckTries = 300*time.Millisecond, 2 })
	h.ready(c)
	id := h.newGroup("bob", "cem")
	cem := patient.login(t, "cem")
	h.say(id, text("hello"))
	cem.event(2)
	answer := c.explained(t, "cem", id, 2, adminv1.Verdict_VERDICT_WRITTEN)
	require.Contains(t, answer.GetSummary(), "not acknowledged")
	bob := d.login(t, "bob") // both events are there, so that none of them begins the tries earlier
	require.Equal(t, errcode.CloseNoAck, bob.closed())
	answer = c.explained(t, "bob", id, 2, adminv1.Verdict_VERDICT_NOT_ACKNOWLEDGED)
	require.EqualValues(t, 2, answer.GetRetries())
	require.Contains(t, answer.GetSummary(), "sent again 2 times")
}

func TestExplainAConnectionThatBroke(t *testing.T) {
	h := newHouse(t)
	c := h.clerk(nil)
	d := h.door(nil)
	h.ready(c)
	id := h.newGroup("bob")
	bob := d.login(t, "bob")
	bob.seqs(1)
	h.say(id, text("hello"))
	bob.event(2)
	require.NoError(t, bob.ws.NetConn().Close())
	answer := c.explained(t, "bob", id, 2, adminv1.Verdict_VERDICT_CONNECTION_LOST)
	require.Contains(t, answer.GetSummary(), "written and not acknowledged")
	// The user is offline for the events after that.
	h.gone(c, "bob", 0)
	h.say(id, text("are you there?"))
	answer = c.explained(t, "bob", id, 3, adminv1.Verdict_VERDICT_OFFLINE)
	require.Contains(t, answer.GetSummary(), "no connection since")
}

func TestExplainWhoMaySeeIt(t *testing.T) {
	h := newHouse(t)
	c := h.clerk(nil)
	d := h.door(nil)
	h.ready(c)
	id := h.newGroup("bob", "cem")
	bob := d.login(t, "bob")
	bob.seqs(1)
	h.say(id, text("before")) // 2
	bob.event(2)
	bob.ackTo(id, 2)
	c.explained(t, "bob", id, 2, adminv1.Verdict_VERDICT_ACKNOWLEDGED)
	h.say(id, removeBob()) // 3
	bob.until(func(f *clientv1.ServerFrame) bool { return f.GetDetached() != nil })
	h.say(id, text("secret")) // 4
	h.say(id, addBob())       // 5
	bob.event(5)
	h.say(id, removeBob()) // 6

	require.Contains(t, c.explained(t, "eve", id, 2, adminv1.Verdict_VERDICT_NOT_MEMBER).GetSummary(), "never was a member")
	c.explained(t, "bob", id, 4, adminv1.Verdict_VERDICT_NOT_MEMBER)
	// The user is not a member any more, and had received the event as a member.
	answer := c.explained(t, "bob", id, 2, adminv1.Verdict_VERDICT_ACKNOWLEDGED)
	require.Nil(t, answer.GetCursor())
	c.explained(t, "bob", id, 3, adminv1.Verdict_VERDICT_WRITTEN)
	h.say(id, text("secret")) // 7
	require.Contains(t, c.explained(t, "bob", id, 7, adminv1.Verdict_VERDICT_NOT_MEMBER).GetSummary(), "ended with 6")
	c.explained(t, "cem", id, 7, adminv1.Verdict_VERDICT_OFFLINE)
}

// If a gateway does not answer, the user may be connected to it.
func TestExplainWithAGatewayThatIsSilent(t *testing.T) {
	h := newHouse(t)
	c := h.clerk(nil)
	d := h.door(nil)
	h.ready(c)
	h.silentGateway("gw-silent")
	id := h.newGroup("bob", "cem")
	cem := d.login(t, "cem")
	cem.seqs(1)
	cem.ackTo(id, 1)
	require.Eventually(t, func() bool {
		return len(c.explain(t, "bob", id, 1).GetMissing()) == 1 // until it is heard of
	}, patience, time.Millisecond)
	answer := c.explained(t, "bob", id, 1, adminv1.Verdict_VERDICT_UNKNOWN)
	require.Equal(t, "gw-silent", answer.GetMissing()[0].GetInstance())
	require.Contains(t, answer.GetSummary(), "gw-silent")
	c.explained(t, "cem", id, 1, adminv1.Verdict_VERDICT_ACKNOWLEDGED)
}

// The records of a gateway that has stopped are lost: that the others never saw the user proves nothing.
func TestExplainWithAGatewayThatHasGone(t *testing.T) {
	h := newHouse(t)
	c := h.clerk(nil)
	first, _ := h.door(nil), h.door(nil)
	h.ready(c)
	id := h.newGroup("bob")
	bob := first.login(t, "bob")
	bob.seqs(1)
	h.say(id, text("hello"))
	bob.event(2)
	c.explained(t, "bob", id, 2, adminv1.Verdict_VERDICT_WRITTEN)
	first.stop()
	h.gateways--
	require.Eventually(t, func() bool { // once it is known to have stopped; until then it counts as not answering
		return strings.Contains(c.explained(t, "bob", id, 2, adminv1.Verdict_VERDICT_UNKNOWN).GetSummary(), "is not known")
	}, patience, 10*time.Millisecond)
	h.say(id, text("are you there?"))
	c.explained(t, "bob", id, 3, adminv1.Verdict_VERDICT_OFFLINE)
}
