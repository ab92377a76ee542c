package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/bus"
	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/fleet"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/pkg/telemetry"
	"github.com/runnelhq/runnel/pkg/telemetry/telemetrytest"
	"github.com/runnelhq/runnel/services/admin"
	"github.com/runnelhq/runnel/services/delivery"
	"github.com/runnelhq/runnel/services/gateway"
)

// house is an installation with one store and several instances of every other part: a real broker, a real store, gateways
// and workers with their own connections, and operators.
type house struct {
	*floor

	logs     *telemetrytest.Log
	verifier *auth.Verifier
	gateways int
	workers  int
}

// clerk is a delivery worker.
type clerk struct {
	adminv1.AdminServiceClient

	name string
	stop func()
}

// door is a gateway.
type door struct {
	*gateway.Gateway

	stop func()
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{floor: newFloor(t), logs: &telemetrytest.Log{}}
	var err error
	h.verifier, err = auth.New(auth.Config{HMACSecret: secret}, auth.Options{})
	require.NoError(t, err)
	t.Cleanup(h.verifier.Close)
	return h
}

func (h *house) log() *slog.Logger { return slog.New(slog.NewTextHandler(h.logs, nil)) }

// run runs a part until the function it gives is called, or the test ends.
func (h *house) run(part func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- part(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(h.t, <-done)
	})
	h.t.Cleanup(stop)
	return stop
}

func (h *house) clerk(change func(*delivery.Config, *delivery.Deps)) *clerk {
	h.t.Helper()
	cfg := delivery.Config{FlushInterval: 10 * time.Millisecond, LeaseTTL: 5 * time.Second}
	deps := delivery.Deps{
		NATS: h.connect(), History: h.history, Log: h.log(),
		Broker: broker.Config{Partitions: h.partitions, Replicas: 1, MaxBytes: 64 << 20, MaxAge: time.Hour, DuplicateWindow: time.Minute},
	}
	if change != nil {
		change(&cfg, &deps)
	}
	worker, err := delivery.New(cfg, deps)
	require.NoError(h.t, err)
	inproc := rpc.NewInproc(telemetry.Discard())
	worker.Register(inproc)
	admin.New(admin.Deps{
		History: deps.History, Fleet: worker.Fleet(), Submit: worker.Do, Bus: bus.OverNATS{Conn: deps.NATS}, Partitions: h.partitions,
		Log: deps.Log.With("worker", worker.Name()),
	}).Register(inproc)
	h.workers++
	return &clerk{adminv1.NewAdminServiceClient(inproc), worker.Name(), h.run(worker.Run)}
}

func (h *house) door(change func(*gateway.Config)) *door {
	h.t.Helper()
	return h.doorWith(change, nil)
}

func (h *house) doorWith(change func(*gateway.Config), equip func(*gateway.Deps)) *door {
	h.t.Helper()
	cfg := defaults(h.t).Gateway
	if change != nil {
		change(&cfg)
	}
	deps := gateway.Deps{
		NATS: h.connect(), Partitions: h.partitions, History: h.history, Verifier: h.verifier, Log: h.log(), Registerer: prometheus.NewRegistry(),
	}
	if equip != nil {
		equip(&deps)
	}
	gw, err := gateway.New(cfg, deps)
	require.NoError(h.t, err)
	h.gateways++
	return &door{gw, h.run(gw.Run)}
}

func (d *door) login(t *testing.T, user string, resume ...*clientv1.Position) *raw {
	t.Helper()
	return loginAt(t, "ws://"+d.Addr().String()+gateway.Path, user, frame.JSON, resume...)
}

// ready waits until all instances are live and all partitions have an owner.
func (h *house) ready(c *clerk) *adminv1.GetStatusResponse {
	h.t.Helper()
	var answer *adminv1.GetStatusResponse
	require.Eventually(h.t, func() bool {
		var err error
		answer, err = c.GetStatus(h.t.Context(), &adminv1.GetStatusRequest{})
		return err == nil && len(answer.GetGateways()) == h.gateways && len(answer.GetWorkers()) == h.workers &&
			!slices.ContainsFunc(answer.GetPartitions(), func(p *adminv1.Partition) bool { return p.GetState() != "running" })
	}, patience, 10*time.Millisecond)
	return answer
}

// newGroup makes a group of ann's and returns its id.
func (h *house) newGroup(members ...string) string {
	h.t.Helper()
	return h.say("", group(members...)).GetConversationId()
}

// say sends a command of ann's, which must be committed.
func (h *house) say(id string, body *conversationv1.Body) *conversationv1.Outcome {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	outcome, err := h.send(ctx, "ann", id, uuid.Must(uuid.NewV7()).String(), body)
	require.NoError(h.t, err)
	return outcome
}

// gone waits until a user has only this many connections left: a client that was asked to close takes a moment.
func (h *house) gone(c *clerk, user string, left int) *adminv1.GetUserResponse {
	h.t.Helper()
	var answer *adminv1.GetUserResponse
	require.Eventually(h.t, func() bool {
		var err error
		answer, err = c.GetUser(h.t.Context(), &adminv1.GetUserRequest{UserId: user})
		require.NoError(h.t, err)
		return len(answer.GetConnections()) == left
	}, patience, time.Millisecond)
	return answer
}

func requireCode(t *testing.T, want codes.Code, err error) {
	t.Helper()
	require.Equal(t, want, status.Code(err), "%v", err)
}

func TestOperatorsSeeTheWholeInstallation(t *testing.T) {
	h := newHouse(t)
	c, _ := h.clerk(nil), h.clerk(nil)
	first, second := h.door(nil), h.door(nil)
	id := ids.Conversation(h.newGroup("bob", "cem"))
	bob, phone := first.login(t, "bob"), second.login(t, "bob")
	cem := second.login(t, "cem")
	for _, r := range []*raw{bob, phone, cem} {
		r.seqs(1)
	}
	ctx := t.Context()
	answer := h.ready(c)
	require.Empty(t, answer.GetMissing())
	require.Len(t, answer.GetPartitions(), h.partitions)
	owners := map[string]int{}
	for i, p := range answer.GetPartitions() {
		require.EqualValues(t, i, p.GetPartition())
		require.Zero(t, p.GetLag())
		owners[p.GetOwner()]++
	}
	var connections uint32
	for _, g := range answer.GetGateways() {
		connections += g.GetConnections()
	}
	require.EqualValues(t, 3, connections)
	require.Eventually(t, func() bool {
		partitions, err := c.ListPartitions(ctx, &adminv1.ListPartitionsRequest{})
		require.NoError(t, err)
		clear(owners)
		for _, p := range partitions.GetPartitions() {
			owners[p.GetOwner()]++
		}
		return len(owners) == 2 && owners[c.name] == 2
	}, patience, 10*time.Millisecond, "both workers have their share")

	list, err := c.ListConnections(ctx, &adminv1.ListConnectionsRequest{})
	require.NoError(t, err)
	require.Len(t, list.GetConnections(), 3)
	list, err = c.ListConnections(ctx, &adminv1.ListConnectionsRequest{UserId: "bob", Gateway: second.ID()})
	require.NoError(t, err)
	require.Len(t, list.GetConnections(), 1)
	require.Equal(t, second.ID(), list.GetConnections()[0].GetGateway())
	onPhone := list.GetConnections()[0].GetConnection().GetConnectionId()
	list, err = c.ListConnections(ctx, &adminv1.ListConnectionsRequest{Limit: 1})
	require.NoError(t, err)
	require.Len(t, list.GetConnections(), 2, "one of each")
	require.Equal(t, []string{second.ID()}, list.GetMore())
	_, err = c.ListConnections(ctx, &adminv1.ListConnectionsRequest{Gateway: "gw-gone"})
	requireCode(t, codes.Unavailable, err)
	one, err := c.GetConnection(ctx, &adminv1.GetConnectionRequest{ConnectionId: onPhone})
	require.NoError(t, err)
	require.Equal(t, second.ID(), one.GetConnection().GetGateway())
	require.Equal(t, id, ids.Conversation(one.GetStandings()[0].GetConversationId()))
	_, err = c.GetConnection(ctx, &adminv1.GetConnectionRequest{ConnectionId: "nobody's"})
	requireCode(t, codes.NotFound, err)

	conversations, err := c.ListConversations(ctx, &adminv1.ListConversationsRequest{UserId: "bob"})
	require.NoError(t, err)
	require.Equal(t, id, ids.Conversation(conversations.GetConversations()[0].GetConversationId()))
	state, err := c.GetConversation(ctx, &adminv1.GetConversationRequest{ConversationId: string(id)})
	require.NoError(t, err)
	require.EqualValues(t, 3, state.GetMembers())
	require.EqualValues(t, 1, state.GetState().GetHead())
	require.Equal(t, "ann", state.GetState().GetMembers()[0].GetCursor().GetUserId())
	require.EqualValues(t, conversation.Partition(id, h.partitions), state.GetPartition())
	require.NotEmpty(t, state.GetOwner())
	members, err := c.ListMembers(ctx, &adminv1.ListMembersRequest{ConversationId: string(id), Limit: 2})
	require.NoError(t, err)
	require.Len(t, members.GetMembers(), 2)
	require.True(t, members.GetMore())
	require.EqualValues(t, 1, members.GetHead())
	unknown := conversation.DirectID("nobody", "else")
	_, err = c.GetConversation(ctx, &adminv1.GetConversationRequest{ConversationId: string(unknown)})
	requireCode(t, codes.NotFound, err)
	_, err = c.ListMembers(ctx, &adminv1.ListMembersRequest{ConversationId: string(unknown)})
	requireCode(t, codes.NotFound, err)

	closed, err := c.Disconnect(ctx, &adminv1.DisconnectRequest{ConnectionId: onPhone})
	require.NoError(t, err)
	require.EqualValues(t, 1, closed.GetClosed())
	require.Equal(t, errcode.CloseDisconnected, phone.closed())
	h.gone(c, "bob", 1)
	_, err = c.Disconnect(ctx, &adminv1.DisconnectRequest{ConnectionId: onPhone})
	requireCode(t, codes.NotFound, err)
	closed, err = c.Disconnect(ctx, &adminv1.DisconnectRequest{UserId: "bob", StayAway: true})
	require.NoError(t, err)
	require.EqualValues(t, 1, closed.GetClosed())
	require.Equal(t, errcode.CloseStayAway, bob.closed())
	_, err = c.Disconnect(ctx, &adminv1.DisconnectRequest{UserId: "bob", ConnectionId: onPhone})
	requireCode(t, codes.InvalidArgument, err)
	require.Contains(t, h.logs.String(), `msg="an operator's action" worker=`+c.name+` did=disconnect caller="this process"`)
}

// An answer that combines several instances lists those that are missing, and is returned all the same.
func TestWhoDoesNotAnswerIsNamed(t *testing.T) {
	h := newHouse(t)
	c := h.clerk(nil)
	h.door(nil)
	h.ready(c)
	h.silentGateway("gw-silent")
	for _, timeout := range []time.Duration{time.Second, 0} {
		var answer *adminv1.GetStatusResponse
		require.Eventually(t, func() bool {
			ctx, cancel := t.Context(), context.CancelFunc(func() {})
			if timeout > 0 {
				ctx, cancel = context.WithTimeout(ctx, timeout)
			}
			defer cancel()
			var err error
			answer, err = c.GetStatus(ctx, &adminv1.GetStatusRequest{})
			timeout *= 2 // a busy machine needs longer for those that answer
			return err == nil && len(answer.GetMissing()) == 1 && len(answer.GetGateways()) == 1 && len(answer.GetWorkerVersions()) == 1
		}, patience, time.Millisecond, "the other gateway answers, and the silent one has given a sign of life")
		require.Equal(t, "gw-silent", answer.GetMissing()[0].GetInstance())
		require.Equal(t, "gateway", answer.GetMissing()[0].GetService())
		require.NotEmpty(t, answer.GetMissing()[0].GetReason())
	}
	_, err := c.GetConnection(t.Context(), &adminv1.GetConnectionRequest{ConnectionId: "perhaps-there"})
	requireCode(t, codes.Unavailable, err)
	require.ErrorContains(t, err, "gw-silent")
}

// silentGateway is a gateway that is live and does not answer.
func (h *house) silentGateway(name string) {
	h.t.Helper()
	instance := fleet.New(fleet.Config{NATS: h.connect(), Service: "gateway", Instance: name, Log: h.log()})
	gatewayv1.RegisterGatewayServiceServer(instance, mute{})
	h.run(instance.Run)
}

type mute struct {
	gatewayv1.UnimplementedGatewayServiceServer
}

func (mute) GetGateway(ctx context.Context, _ *gatewayv1.GetGatewayRequest) (*gatewayv1.GetGatewayResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (mute) GetConnection(ctx context.Context, _ *gatewayv1.GetConnectionRequest) (*gatewayv1.GetConnectionResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (mute) Explain(ctx context.Context, _ *gatewayv1.ExplainRequest) (*gatewayv1.ExplainResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// All connections of a revoked user are closed on every gateway, and their token is refused from then on.
func TestRevokedUserIsGone(t *testing.T) {
	h := newHouse(t)
	c := h.clerk(nil)
	first, second := h.door(nil), h.door(nil)
	h.ready(c)
	other := first.login(t, "ann")
	gone := []*raw{first.login(t, "bob"), second.login(t, "bob"), second.login(t, "bob")}
	before := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	answer, err := c.RevokeUser(ctx, &adminv1.RevokeUserRequest{UserId: "bob"})
	require.NoError(t, err)
	require.EqualValues(t, 3, answer.GetClosed())
	require.Empty(t, answer.GetMissing())
	require.GreaterOrEqual(t, answer.GetBeforeMs(), before.UnixMilli())
	for _, r := range gone {
		code := r.closed()
		require.False(t, code.Reconnect(), "%v", code)
	}
	require.Equal(t, answer.GetBeforeMs(), h.gone(c, "bob", 0).GetRevokedBeforeMs())
	old, err := auth.Mint([]byte(secret), "bob", time.Hour, before, "", "")
	require.NoError(t, err)
	refused := dialAt(t, "ws://"+second.Addr().String()+gateway.Path, frame.JSON)
	refused.send(&clientv1.ClientFrame{Id: 1, Request: &clientv1.ClientFrame_Connect{Connect: &clientv1.Connect{Token: old, DeviceId: "d"}}})
	require.Equal(t, errcode.CloseUnauthenticated, refused.closed())
	require.NotNil(t, other.ask(&clientv1.ClientFrame{Request: &clientv1.ClientFrame_ListConversations{ListConversations: &clientv1.ListConversations{}}}).GetConversations())
	require.Contains(t, h.logs.String(), "did=revoke")

	_, err = c.RevokeUser(t.Context(), &adminv1.RevokeUserRequest{UserId: "not\na user"})
	requireCode(t, codes.InvalidArgument, err)
}

func TestMovePartition(t *testing.T) {
	h := newHouse(t)
	// They renew so rarely that only a notice makes them read in time.
	rarely := func(cfg *delivery.Config, _ *delivery.Deps) { cfg.LeaseTTL = time.Minute }
	a, b := h.clerk(rarely), h.clerk(rarely)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	h.ready(a)
	id := ids.Conversation(h.newGroup("bob"))
	partition := uint32(conversation.Partition(id, h.partitions))
	for _, to := range []*clerk{a, b, a} {
		answer, err := a.MovePartition(ctx, &adminv1.MovePartitionRequest{Partition: partition, Worker: to.name})
		require.NoError(t, err)
		require.True(t, answer.GetMoved())
		state, err := b.GetConversation(ctx, &adminv1.GetConversationRequest{ConversationId: string(id)})
		require.NoError(t, err)
		require.Equal(t, to.name, state.GetOwner())
		h.say(string(id), text("goes on"))
	}
	list, err := a.ListPartitions(ctx, &adminv1.ListPartitionsRequest{})
	require.NoError(t, err)
	on := list.GetPartitions()[partition].GetWanted()
	require.Equal(t, a.name, on)
	answer, err := a.MovePartition(ctx, &adminv1.MovePartitionRequest{Partition: partition})
	require.NoError(t, err)
	require.True(t, answer.GetMoved())
	list, err = a.ListPartitions(ctx, &adminv1.ListPartitionsRequest{})
	require.NoError(t, err)
	require.Empty(t, list.GetPartitions()[partition].GetWanted())

	_, err = a.MovePartition(ctx, &adminv1.MovePartitionRequest{Partition: partition, Worker: "nobody"})
	requireCode(t, codes.NotFound, err)
	_, err = a.MovePartition(ctx, &adminv1.MovePartitionRequest{Partition: 99})
	requireCode(t, codes.InvalidArgument, err)

	// An owner that does not hand over: the request is stored, and the answer says that it is not fulfilled.
	b.stop()
	h.workers--
	stuck := &held{HistoryServiceClient: h.history}
	s := h.clerk(func(_ *delivery.Config, d *delivery.Deps) { d.History = stuck })
	h.ready(a)
	stuck.hold()
	list, err = a.ListPartitions(ctx, &adminv1.ListPartitionsRequest{})
	require.NoError(t, err)
	at := slices.IndexFunc(list.GetPartitions(), func(p *adminv1.Partition) bool { return p.GetOwner() == a.name })
	impatient, leave := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		var err error
		answer, err = a.MovePartition(impatient, &adminv1.MovePartitionRequest{Partition: uint32(at), Worker: s.name})
		ended <- err
	}()
	require.Eventually(t, func() bool {
		list, err := a.ListPartitions(ctx, &adminv1.ListPartitionsRequest{})
		return err == nil && list.GetPartitions()[at].GetWanted() == s.name
	}, patience, 10*time.Millisecond, "the request is stored")
	leave()
	require.NoError(t, <-ended)
	require.False(t, answer.GetMoved())
	stuck.release()
}

// held is a store that blocks a worker's lease calls for a time.
type held struct {
	historyv1.HistoryServiceClient

	mu   sync.Mutex
	held bool
}

func (l *held) hold()    { l.set(true) }
func (l *held) release() { l.set(false) }

func (l *held) set(to bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = to
}

func (l *held) Lease(ctx context.Context, in *historyv1.LeaseRequest, opts ...grpc.CallOption) (*historyv1.LeaseResponse, error) {
	l.mu.Lock()
	refuse := l.held && !in.GetStopping()
	l.mu.Unlock()
	if refuse {
		return nil, status.Error(codes.Unavailable, "held back")
	}
	return l.HistoryServiceClient.Lease(ctx, in, opts...)
}

// poisoned is a store that rejects some commands.
type poisoned struct {
	historyv1.HistoryServiceClient

	mu     sync.Mutex
	healed bool
}

func (p *poisoned) heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.healed = true
}

func (p *poisoned) Append(ctx context.Context, in *historyv1.AppendRequest, opts ...grpc.CallOption) (*historyv1.AppendResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, event := range in.GetEvents() {
		if bytes.Contains(event.GetBody(), []byte("poison")) && !p.healed {
			return nil, status.Error(codes.InvalidArgument, "events: cannot be stored")
		}
	}
	return p.HistoryServiceClient.Append(ctx, in, opts...)
}

func TestDeadLettersAreTriedAgain(t *testing.T) {
	h := newHouse(t)
	store := &poisoned{HistoryServiceClient: h.history}
	c := h.clerk(func(cfg *delivery.Config, d *delivery.Deps) { cfg.MaxTries, d.History = 1, store })
	h.ready(c)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	id := ids.Conversation(h.newGroup("bob"))
	home := conversation.Partition(id, h.partitions)
	js, err := jetstream.New(h.nc)
	require.NoError(t, err)
	put := func(partition int, payload []byte) {
		_, err := js.Publish(ctx, broker.CommandSubject(ids.Partition(partition)), payload)
		require.NoError(t, err)
	}
	letters := func(n int) []*historyv1.StoredDeadLetter {
		t.Helper()
		var list *adminv1.ListDeadLettersResponse
		require.Eventually(t, func() bool {
			list, err = c.ListDeadLetters(ctx, &adminv1.ListDeadLettersRequest{})
			require.NoError(t, err)
			return len(list.GetDeadLetters()) == n
		}, patience, 10*time.Millisecond)
		return list.GetDeadLetters()
	}

	// A payload that is not a command can only be dropped.
	put(int(home), []byte("\xff garbage"))
	garbage := letters(1)[0]
	require.Empty(t, garbage.GetLetter().GetPayload())
	shown, err := c.GetDeadLetter(ctx, &adminv1.GetDeadLetterRequest{DeadLetterId: garbage.GetDeadLetterId()})
	require.NoError(t, err)
	require.Equal(t, []byte("\xff garbage"), shown.GetDeadLetter().GetLetter().GetPayload())
	require.Empty(t, shown.GetConversationId())
	_, err = c.RetryDeadLetter(ctx, &adminv1.RetryDeadLetterRequest{DeadLetterId: garbage.GetDeadLetterId()})
	requireCode(t, codes.FailedPrecondition, err)
	_, err = c.DropDeadLetter(ctx, &adminv1.DropDeadLetterRequest{DeadLetterId: garbage.GetDeadLetterId()})
	require.NoError(t, err)
	_, err = c.DropDeadLetter(ctx, &adminv1.DropDeadLetterRequest{DeadLetterId: garbage.GetDeadLetterId()})
	requireCode(t, codes.NotFound, err)

	// A command in the stream of another partition is carried out in its own.
	stray := &brokerv1.Command{
		ConversationId: string(id), Sender: "bob", CommandId: uuid.Must(uuid.NewV7()).String(), Body: encoded(t, text("strayed")), Salt: make([]byte, chain.SaltSize), Inbox: "gone",
	}
	payload, err := stray.MarshalVT()
	require.NoError(t, err)
	put(int((home+1)%ids.Partition(h.partitions)), payload)
	letter := letters(1)[0]
	shown, err = c.GetDeadLetter(ctx, &adminv1.GetDeadLetterRequest{DeadLetterId: letter.GetDeadLetterId()})
	require.NoError(t, err)
	require.Equal(t, "bob", shown.GetSender())
	require.Equal(t, stray.GetCommandId(), shown.GetCommandId())
	require.Equal(t, "strayed", shown.GetBody().GetMessage().GetText())
	retried, err := c.RetryDeadLetter(ctx, &adminv1.RetryDeadLetterRequest{DeadLetterId: letter.GetDeadLetterId()})
	require.NoError(t, err)
	require.EqualValues(t, 2, retried.GetOutcome().GetSeq())
	letters(0)
	_, err = c.RetryDeadLetter(ctx, &adminv1.RetryDeadLetterRequest{DeadLetterId: letter.GetDeadLetterId()})
	requireCode(t, codes.NotFound, err)

	// A refused dead letter is kept, because it may be the only copy of what a user wrote.
	payload, err = (&brokerv1.Command{
		ConversationId: string(id), Sender: "eve", CommandId: uuid.Must(uuid.NewV7()).String(), Body: encoded(t, text("let me in")), Salt: make([]byte, chain.SaltSize),
	}).MarshalVT()
	require.NoError(t, err)
	put(int((home+1)%ids.Partition(h.partitions)), payload)
	letter = letters(1)[0]
	retried, err = c.RetryDeadLetter(ctx, &adminv1.RetryDeadLetterRequest{DeadLetterId: letter.GetDeadLetterId()})
	require.NoError(t, err)
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND, retried.GetOutcome().GetError().GetCode())
	letters(1)
	_, err = c.DropDeadLetter(ctx, &adminv1.DropDeadLetterRequest{DeadLetterId: letter.GetDeadLetterId()})
	require.NoError(t, err)

	// A command that becomes a dead letter again is kept until the cause is removed. It was sent through the submitter, so
	// the broker remembers its message id.
	poison := uuid.Must(uuid.NewV7()).String()
	outcome, err := h.submitter.Do(ctx, &brokerv1.Command{
		ConversationId: string(id), Sender: "ann", CommandId: poison, Body: encoded(t, text("poison")), Salt: make([]byte, chain.SaltSize),
	}, nil)
	require.NoError(t, err)
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_DEAD_LETTERED, outcome.GetError().GetCode())
	letter = letters(1)[0]
	retried, err = c.RetryDeadLetter(ctx, &adminv1.RetryDeadLetterRequest{DeadLetterId: letter.GetDeadLetterId()})
	require.NoError(t, err)
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_DEAD_LETTERED, retried.GetOutcome().GetError().GetCode())
	both := letters(2)
	store.heal()
	// The older dead letter is retried in the attempt that was dead-lettered again, and that is final. The newer one is
	// retried in the next attempt.
	retried, err = c.RetryDeadLetter(ctx, &adminv1.RetryDeadLetterRequest{DeadLetterId: both[0].GetDeadLetterId()})
	require.NoError(t, err)
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_DEAD_LETTERED, retried.GetOutcome().GetError().GetCode())
	slices.Reverse(both)
	for i, again := range both {
		retried, err = c.RetryDeadLetter(ctx, &adminv1.RetryDeadLetterRequest{DeadLetterId: again.GetDeadLetterId()})
		require.NoError(t, err)
		require.EqualValues(t, 3, retried.GetOutcome().GetSeq(), "it is the same command, so it happens once")
		require.Equal(t, i > 0, retried.GetOutcome().GetRepeated())
	}
	letters(0)
	require.Contains(t, h.logs.String(), `did="retry a dead letter"`)
	require.Contains(t, h.logs.String(), `did="drop a dead letter"`)
}

// verifier is the AdminService over a ledger alone.
func (l *ledger) verifier(t *testing.T) adminv1.AdminServiceClient {
	t.Helper()
	inproc := rpc.NewInproc(telemetry.Discard())
	admin.New(admin.Deps{History: l.history, Partitions: 1, Log: slog.New(slog.DiscardHandler)}).Register(inproc)
	return adminv1.NewAdminServiceClient(inproc)
}

func TestVerifyConversation(t *testing.T) {
	for name, test := range map[string]struct {
		statement string
		faults    []uint64
		erased    uint64
	}{
		"nothing":                     {},
		"a byte of a body":            {`UPDATE events SET body = CAST(substr(body, 1, length(body) - 1) || 'X' AS BLOB) WHERE seq = 5`, []uint64{5}, 0},
		"a hash":                      {`UPDATE events SET hash = zeroblob(32) WHERE seq = 5`, []uint64{5, 6}, 0},
		"an event is missing":         {`DELETE FROM events WHERE seq = 5`, []uint64{5, 6}, 0}, // 6 cannot be checked
		"several are missing":         {`DELETE FROM events WHERE seq IN (3, 4, 7)`, []uint64{3, 5, 7, 8}, 0},
		"the first event is missing":  {`DELETE FROM events WHERE seq = 1`, []uint64{1, 2}, 0},
		"the newest event is missing": {`DELETE FROM events WHERE seq = 9`, []uint64{9}, 0},
		"all are missing":             {`DELETE FROM events`, []uint64{1}, 0},
		"the head":                    {`UPDATE conversations SET head_hash = zeroblob(32)`, []uint64{9}, 0},
		"an event is erased":          {`UPDATE events SET body = NULL, salt = NULL, commitment = x'%x' WHERE seq = 5`, nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLedger(t)
			page, err := l.history.Read(t.Context(), &historyv1.ReadRequest{ConversationId: l.id})
			require.NoError(t, err)
			if test.erased > 0 {
				event := page.GetEvents()[4]
				test.statement = fmt.Sprintf(test.statement, chain.Commitment(event.GetSalt(), event.GetBody()))
			}
			if test.statement != "" {
				l.tamper(t, test.statement)
			}
			answer, err := l.verifier(t).VerifyConversation(t.Context(), &adminv1.VerifyConversationRequest{ConversationId: l.id})
			require.NoError(t, err)
			var faults []uint64
			for _, fault := range answer.GetFaults() {
				faults = append(faults, fault.GetSeq())
				require.NotEmpty(t, fault.GetProblem())
			}
			require.Equal(t, test.faults, faults, "%v", answer.GetFaults())
			require.Equal(t, test.erased, answer.GetErased())
			require.EqualValues(t, ledgerLength, answer.GetChecked(), "whatever is wrong, it goes on to the end")
			require.EqualValues(t, ledgerLength, answer.GetHead())
		})
	}
}

// Each stretch continues the previous one.
func TestVerifyFromTheMiddle(t *testing.T) {
	l := newLedger(t)
	page, err := l.history.Read(t.Context(), &historyv1.ReadRequest{ConversationId: l.id})
	require.NoError(t, err)
	v := l.verifier(t)
	hash := page.GetEvents()[3].GetHash()
	for name, test := range map[string]struct {
		hash   []byte
		faults int
	}{"given": {hash, 0}, "taken on trust": {nil, 0}, "another": {bytes.Repeat([]byte{1}, chain.Size), 1}} {
		answer, err := v.VerifyConversation(t.Context(), &adminv1.VerifyConversationRequest{ConversationId: l.id, After: 4, AfterHash: test.hash})
		require.NoError(t, err)
		require.Len(t, answer.GetFaults(), test.faults, name)
		require.EqualValues(t, ledgerLength, answer.GetChecked())
		require.Equal(t, page.GetEvents()[ledgerLength-1].GetHash(), answer.GetCheckedHash())
	}
	for _, bad := range []*adminv1.VerifyConversationRequest{
		{ConversationId: "x"}, {ConversationId: l.id, After: ledgerLength + 1}, {ConversationId: l.id, After: 1, AfterHash: []byte("short")},
	} {
		_, err := v.VerifyConversation(t.Context(), bad)
		requireCode(t, codes.InvalidArgument, err)
	}
	_, err = v.VerifyConversation(t.Context(), &adminv1.VerifyConversationRequest{ConversationId: string(conversation.DirectID("no", "body"))})
	requireCode(t, codes.NotFound, err)
}
