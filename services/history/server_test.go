package history_test

import (
	"context"
	"encoding/hex"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/pkg/telemetry"
	"github.com/runnelhq/runnel/pkg/telemetry/telemetrytest"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history"
	"github.com/runnelhq/runnel/services/history/store"
	"github.com/runnelhq/runnel/services/history/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bed is a service with SQLite, called over a socket.
type bed struct {
	client   historyv1.HistoryServiceClient
	server   *history.Server
	store    history.Store
	registry *prometheus.Registry
	log      *telemetrytest.Log
}

func newBed(t *testing.T) *bed {
	t.Helper()
	b := &bed{registry: prometheus.NewRegistry(), log: &telemetrytest.Log{}}
	log := slog.New(slog.NewTextHandler(b.log, nil))
	cfg := history.Config{Database: "sqlite:" + filepath.Join(t.TempDir(), "history.db")}
	var err error
	b.store, err = history.Open(t.Context(), cfg, storetest.Partitions, log)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.store.Close()) })
	server, err := rpc.NewServer(rpc.ServerConfig{Listen: "127.0.0.1:0"}, telemetry.Discard())
	require.NoError(t, err)
	b.server = history.New(cfg, b.store, log, b.registry)
	b.server.Register(server)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	conn, err := rpc.Dial(server.Addr(), rpc.ClientConfig{Service: rpc.RoleHistory}, telemetry.Discard())
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, conn.Close())
		stop()
		require.NoError(t, <-ended)
	})
	b.client = historyv1.NewHistoryServiceClient(conn)
	return b
}

// creation makes the batch that creates a group, in the group's partition.
func creation(t *testing.T, members ...string) (*storetest.Worker, *historyv1.AppendRequest) {
	t.Helper()
	worker := storetest.NewWorker(nil, 0, storetest.ClockAt(0))
	create := worker.CreateGroup("alice", "our group", members...)
	worker.Partition = conversation.Partition(ids.Conversation(create.GetConversationId()), storetest.Partitions)
	return worker, worker.Batch(worker.Apply(t, create)...)
}

// after returns the watermark after an append.
func after(batch *historyv1.AppendRequest, response *historyv1.AppendResponse) *historyv1.Watermark {
	watermark := proto.CloneOf(batch.GetNext())
	watermark.Epoch = response.GetEpoch()
	return watermark
}

func requireCode(t *testing.T, want codes.Code, err error) *status.Status {
	t.Helper()
	st, _ := status.FromError(err)
	require.Equal(t, want, st.Code(), "%v", err)
	return st
}

func TestTheWholeServiceOverASocket(t *testing.T) {
	b := newBed(t)
	worker, batch := creation(t, "bob")
	id := batch.GetEvents()[0].GetConversationId()
	response, err := b.client.Append(t.Context(), batch)
	require.NoError(t, err)
	require.Empty(t, response.GetDuplicates())
	require.Positive(t, response.GetEpoch())
	worker.Watermark = after(batch, response)

	watermark, err := b.client.GetWatermark(t.Context(), &historyv1.GetWatermarkRequest{Partition: uint32(worker.Partition)})
	require.NoError(t, err)
	require.True(t, proto.Equal(worker.Watermark, watermark.GetWatermark()))
	require.Nil(t, watermark.GetBackup())

	_, err = b.client.SaveCursors(t.Context(), &historyv1.SaveCursorsRequest{Updates: []*historyv1.CursorUpdate{
		{ConversationId: id, Cursor: &conversationv1.Cursor{UserId: "bob", DeliveredSeq: 1, DeliveredTimeMs: 7}},
	}})
	require.NoError(t, err)
	states, err := b.client.GetConversations(t.Context(), &historyv1.GetConversationsRequest{ConversationIds: []string{id}})
	require.NoError(t, err)
	require.Equal(t, int64(7), states.GetConversations()[0].GetMembers()[1].GetCursor().GetDeliveredTimeMs())

	page, err := b.client.Read(t.Context(), &historyv1.ReadRequest{ConversationId: id, Viewer: "bob"})
	require.NoError(t, err)
	require.True(t, proto.Equal(batch.GetEvents()[0], page.GetEvents()[0]))

	found, err := b.client.FindCommands(t.Context(), &historyv1.FindCommandsRequest{Commands: []*historyv1.CommandKey{
		{ConversationId: id, Sender: "alice", CommandId: batch.GetEvents()[0].GetCommandId()},
	}})
	require.NoError(t, err)
	require.Len(t, found.GetEvents(), 1)

	heads, err := b.client.Heads(t.Context(), &historyv1.HeadsRequest{ConversationIds: []string{id}})
	require.NoError(t, err)
	require.Equal(t, uint64(1), heads.GetHeads()[0].GetHead())
	list, err := b.client.ListConversations(t.Context(), &historyv1.ListConversationsRequest{UserId: "bob"})
	require.NoError(t, err)
	require.Len(t, list.GetConversations(), 1)
	members, err := b.client.ListMembers(t.Context(), &historyv1.ListMembersRequest{ConversationId: id, Viewer: "alice"})
	require.NoError(t, err)
	require.Len(t, members.GetMembers(), 2)
	lease, err := b.client.Lease(t.Context(), &historyv1.LeaseRequest{Worker: "host.example-1:42", TtlMs: 2000})
	require.NoError(t, err)
	require.Len(t, lease.GetHeld(), storetest.Partitions)

	// The same command again, at the current watermark.
	again := proto.CloneOf(batch)
	again.Expected, again.Next = worker.Watermark, &historyv1.Watermark{Stream: batch.GetNext().GetStream(), Sequence: 9}
	again.Sequences = []uint64{9}
	response, err = b.client.Append(t.Context(), again)
	require.NoError(t, err)
	require.Len(t, response.GetDuplicates(), 1)
	require.Equal(t, 1, metric(t, b, "runnel_history_duplicates_total"))
}

func TestRefusals(t *testing.T) {
	b := newBed(t)
	worker, batch := creation(t, "bob")
	id := batch.GetEvents()[0].GetConversationId()
	response, err := b.client.Append(t.Context(), batch)
	require.NoError(t, err)
	worker.Watermark = after(batch, response)

	_, err = b.client.Append(t.Context(), batch)
	st := requireCode(t, codes.Aborted, err)
	require.Len(t, st.Details(), 1, "it contains the current watermark")
	require.True(t, proto.Equal(worker.Watermark, st.Details()[0].(*historyv1.Watermark)))

	back := worker.Batch()
	back.Next.Sequence = 0
	_, err = b.client.Append(t.Context(), back)
	require.Contains(t, requireCode(t, codes.FailedPrecondition, err).Message(), "positions must rise")

	worker.Apply(t, worker.Command(id, "alice", storetest.Message("never appended")))
	_, err = b.client.Append(t.Context(), worker.Batch(worker.Apply(t, worker.Command(id, "alice", storetest.Message("a hole before it")))...))
	requireCode(t, codes.FailedPrecondition, err)

	_, err = b.client.Read(t.Context(), &historyv1.ReadRequest{ConversationId: id, Viewer: "stranger"})
	requireCode(t, codes.NotFound, err)
	_, err = b.client.ListMembers(t.Context(), &historyv1.ListMembersRequest{ConversationId: id, Viewer: "stranger"})
	requireCode(t, codes.NotFound, err)
	ctx, cancel := context.WithTimeout(t.Context(), -1)
	defer cancel()
	_, err = b.client.Heads(ctx, &historyv1.HeadsRequest{})
	requireCode(t, codes.DeadlineExceeded, err)
	require.NotContains(t, b.log.String(), "level=WARN", "errors of callers are not logged")
}

func TestAnAwayDatabaseIsUnavailableAndSaysNoMore(t *testing.T) {
	b := newBed(t)
	require.NoError(t, b.store.Close())
	_, batch := creation(t)
	for range 50 { // called without a client, which would stop retrying
		_, err := b.server.Append(t.Context(), batch)
		st := requireCode(t, codes.Unavailable, err)
		require.NotContains(t, st.Message(), "sql")
		require.NotContains(t, st.Message(), "closed")
	}
	require.Contains(t, b.log.String(), "operation=append")
	require.Less(t, strings.Count(b.log.String(), "level=WARN"), 10, "an outage does not flood the log")
	require.Equal(t, 50, metric(t, b, "runnel_history_refused_total", "append", "unavailable"))
}

func TestAWatermarkThatGoesBackIsReported(t *testing.T) {
	b := newBed(t)
	var present *historyv1.Watermark
	for _, next := range []*historyv1.Watermark{{Stream: "1", Sequence: 9}, {Stream: "1", Sequence: 10}, {Stream: "1", Sequence: 7}, {Stream: "2"}} {
		goesBack := next.GetStream() != present.GetStream() || next.GetSequence() < present.GetSequence()
		batch := &historyv1.AppendRequest{Expected: present, Next: next, BeginEpoch: present != nil && goesBack}
		response, err := b.client.Append(t.Context(), batch)
		require.NoError(t, err)
		present = after(batch, response)
	}
	require.Equal(t, 1, metric(t, b, "runnel_history_watermark_rewinds_total"), "another stream is not a rewind")
	require.Contains(t, b.log.String(), "a watermark went back")
}

func TestDeadLettersAreTakenWhateverTheirReason(t *testing.T) {
	b := newBed(t)
	batch := &historyv1.AppendRequest{
		Next: &historyv1.Watermark{Stream: "1", Sequence: 3},
		// gRPC itself refuses text that is not UTF-8; a call in the same process has no such check.
		DeadLetters: []*historyv1.DeadLetter{{Sequence: 1, Reason: "a\x00b" + strings.Repeat("é", 2000), Payload: []byte("?")}, {Sequence: 2}},
	}
	_, err := b.client.Append(t.Context(), batch)
	require.NoError(t, err)
	require.Len(t, batch.GetDeadLetters()[0].GetReason(), 4003, "the caller's message is left as it was")
}

func TestDamageIsReported(t *testing.T) {
	b := newBed(t)
	_, batch := creation(t)
	id := batch.GetEvents()[0].GetConversationId()
	_, err := b.client.Append(t.Context(), batch)
	require.NoError(t, err)
	damaged := damagedStore{b.store}
	server := history.New(history.Config{}, damaged, slog.New(slog.NewTextHandler(b.log, nil)), prometheus.NewRegistry())
	page, err := server.Read(t.Context(), &historyv1.ReadRequest{ConversationId: id})
	require.NoError(t, err)
	require.Len(t, page.GetEvents(), 1)
	require.Contains(t, b.log.String(), "cannot be decoded")
	require.Contains(t, b.log.String(), "seq=1")
}

// A hole in a log is not the caller's fault and not temporary: the error names the missing events.
func TestMissingRowsAreNamed(t *testing.T) {
	b := newBed(t)
	gap := &store.GapError{ConversationID: "g", First: 3, Last: 4}
	server := history.New(history.Config{}, &faultyStore{Store: b.store, err: gap}, slog.New(slog.NewTextHandler(b.log, nil)), prometheus.NewRegistry())
	_, err := server.GetConversations(t.Context(), &historyv1.GetConversationsRequest{})
	require.Equal(t, codes.DataLoss, status.Code(err))
	require.ErrorContains(t, err, "events 3 to 4 of conversation g are missing")
	missing, ok := rpc.Detail[*conversationv1.Range](err)
	require.True(t, ok)
	require.True(t, proto.Equal(&conversationv1.Range{First: 3, Last: 4}, missing))
	_, ok = rpc.Detail[*historyv1.Fork](err)
	require.False(t, ok)
	require.Contains(t, b.log.String(), "first=3 last=4")
}

// damagedStore returns every event as if its body could not be decoded; the stores' own tests damage a real row.
type damagedStore struct{ history.Store }

func (s damagedStore) Read(ctx context.Context, request *historyv1.ReadRequest) (*historyv1.ReadResponse, error) {
	page, err := s.Store.Read(ctx, request)
	for _, event := range page.GetEvents() {
		event.Body, event.Commitment = nil, nil
	}
	return page, err
}

func TestOpen(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	for database, want := range map[string]string{
		"":                       "no database is set",
		"mysql://secret@host/x":  "must be sqlite:PATH or postgres://",
		"sqlite:":                "must be sqlite:PATH or postgres://",
		"postgres://u:hunter2@%": "should look like",
	} {
		_, err := history.Open(t.Context(), history.Config{Database: database}, 16, log)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "secret")
		require.NotContains(t, err.Error(), "hunter2")
	}
	_, err := history.Open(t.Context(), history.Config{Database: "sqlite:x"}, 0, log)
	require.ErrorContains(t, err, "partitions")
}

func metric(t *testing.T, b *bed, name string, labels ...string) int {
	t.Helper()
	families, err := b.registry.Gather()
	require.NoError(t, err)
	for _, family := range families {
		for _, m := range family.GetMetric() {
			values := make([]string, 0, len(m.GetLabel()))
			for _, label := range m.GetLabel() {
				values = append(values, label.GetValue())
			}
			if family.GetName() == name && strings.Join(values, ",") == strings.Join(labels, ",") {
				return int(m.GetCounter().GetValue())
			}
		}
	}
	require.Fail(t, "no metric "+name)
	return 0
}

func TestMetricNamesAreWellFormed(t *testing.T) {
	b := newBed(t)
	_, err := b.client.Heads(t.Context(), &historyv1.HeadsRequest{})
	require.NoError(t, err)
	problems, err := testutil.GatherAndLint(b.registry)
	require.NoError(t, err)
	require.Empty(t, problems)
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func decodeHex(t *testing.T, text string) []byte {
	t.Helper()
	decoded, err := hex.DecodeString(text)
	require.NoError(t, err)
	return decoded
}
