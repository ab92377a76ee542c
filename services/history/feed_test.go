package history_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history"
	"github.com/runnelhq/runnel/services/history/ledger"
	"github.com/runnelhq/runnel/services/history/store/storetest"
)

// commit appends through the service.
func (b *bed) commit(t *testing.T, worker *storetest.Worker, batch *historyv1.AppendRequest) {
	t.Helper()
	response, err := b.client.Append(t.Context(), batch)
	require.NoError(t, err)
	require.Empty(t, response.GetDuplicates())
	worker.Watermark = after(batch, response)
}

func TestAReaderOfTheFeedIsWokenByTheNextAppend(t *testing.T) {
	b := newBed(t)
	b.server.SetRecheck(time.Hour) // only the bell wakes a reader
	worker, batch := creation(t, "bob")
	id := batch.GetEvents()[0].GetConversationId()
	b.commit(t, worker, batch)
	request := &historyv1.ReadFeedRequest{Partition: uint32(worker.Partition), WaitMs: 60_000}
	page, err := b.client.ReadFeed(t.Context(), request)
	require.NoError(t, err)
	require.Len(t, page.GetEntries(), 1)
	require.True(t, proto.Equal(batch.GetEvents()[0], page.GetEntries()[0].GetEvent()))

	request.After = page.GetEntries()[0].GetPosition()
	answered := make(chan *historyv1.ReadFeedResponse, 1)
	go func() {
		page, err := b.client.ReadFeed(context.WithoutCancel(t.Context()), request)
		if err == nil {
			answered <- page
		}
		close(answered)
	}()
	require.Eventually(t, func() bool { return readings(t, b.registry)["operation_seconds{sqlite,read_feed}"] == 2 }, time.Minute, time.Millisecond, "it read once and found nothing")
	b.commit(t, worker, worker.Batch(worker.Apply(t, worker.Command(id, "alice", storetest.Message("2")))...))
	page = <-answered
	require.Len(t, page.GetEntries(), 1)
	require.Equal(t, uint64(2), page.GetEntries()[0].GetEvent().GetSeq())

	request.After = page.GetEntries()[0].GetPosition()
	request.WaitMs = 1
	page, err = b.client.ReadFeed(t.Context(), request)
	require.NoError(t, err)
	require.Empty(t, page.GetEntries(), "the wait is over")
	require.True(t, proto.Equal(request.GetAfter(), page.GetWatermark()))
}

func TestAServerThatIsClosedDoesNotWait(t *testing.T) {
	b := newBed(t)
	require.NoError(t, b.server.Close())
	page, err := b.client.ReadFeed(t.Context(), &historyv1.ReadFeedRequest{WaitMs: 60_000})
	require.NoError(t, err)
	require.Empty(t, page.GetEntries())
	require.NoError(t, b.server.Close(), "a second call has no effect")
}

func TestACallerThatGivesUpWaitingIsLetGo(t *testing.T) {
	b := newBed(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := b.server.ReadFeed(ctx, &historyv1.ReadFeedRequest{WaitMs: 60_000})
	requireCode(t, codes.Canceled, err)
}

func TestAPositionThatIsNotOnTheLogIsATypedFork(t *testing.T) {
	b := newBed(t)
	worker, batch := creation(t, "bob")
	b.commit(t, worker, batch)
	asked := &historyv1.Position{Epoch: worker.Watermark.GetEpoch(), Sequence: 99}
	_, err := b.client.ReadFeed(t.Context(), &historyv1.ReadFeedRequest{Partition: uint32(worker.Partition), After: asked, WaitMs: 60_000})
	st := requireCode(t, codes.FailedPrecondition, err)
	require.Len(t, st.Details(), 1)
	want := &historyv1.Fork{Partition: uint32(worker.Partition), Asked: asked, Last: &historyv1.Position{Epoch: asked.GetEpoch(), Sequence: 1}}
	require.True(t, proto.Equal(want, st.Details()[0].(*historyv1.Fork)), "%v", st.Details()[0])
}

func TestCursorsRefusalsFactsMessagesAndMarksOverASocket(t *testing.T) {
	b := newBed(t)
	ctx := t.Context()
	worker, batch := creation(t, "bob")
	worker.Store = b.store
	id := batch.GetEvents()[0].GetConversationId()
	batch.Refusals = []*historyv1.Refusal{refusal(id, "eve", batch.GetEvents()[0].GetCommandId())}
	b.commit(t, worker, batch)
	b.commit(t, worker, worker.Batch(worker.Apply(t, worker.Command(id, "alice", storetest.Message("2")), worker.Command(id, "bob", storetest.React(2, "x", false)))...))

	refusals, err := b.client.ListRefusals(ctx, &historyv1.ListRefusalsRequest{Partition: uint32(worker.Partition)})
	require.NoError(t, err)
	require.Len(t, refusals.GetRefusals(), 1)
	require.True(t, proto.Equal(batch.GetRefusals()[0], refusals.GetRefusals()[0]))
	found, err := b.client.GetFacts(ctx, &historyv1.GetFactsRequest{Needs: []*historyv1.Need{{ConversationId: id, Seq: 2, UserId: "bob"}}})
	require.NoError(t, err)
	require.Len(t, found.GetFacts()[0].GetReactions(), 1)
	messages, err := b.client.ReadMessages(ctx, &historyv1.ReadMessagesRequest{ConversationId: id, Viewer: "bob", Kinds: conversation.MessageKinds()})
	require.NoError(t, err)
	require.Len(t, messages.GetMessages(), 1)
	require.True(t, messages.GetMessages()[0].GetReactions()[0].GetMine())
	_, err = b.client.ReadMessages(ctx, &historyv1.ReadMessagesRequest{ConversationId: id, Viewer: "eve", Kinds: conversation.MessageKinds()})
	requireCode(t, codes.NotFound, err)

	cursor := &historyv1.FeedCursor{Partition: uint32(worker.Partition), Position: &historyv1.Position{Epoch: 1, Sequence: 2}}
	_, err = b.client.SaveFeedCursor(ctx, &historyv1.SaveFeedCursorRequest{Reader: "search.v1", Cursor: cursor})
	require.NoError(t, err)
	cursors, err := b.client.GetFeedCursors(ctx, &historyv1.GetFeedCursorsRequest{Reader: "search.v1"})
	require.NoError(t, err)
	require.Len(t, cursors.GetCursors(), 1)
	require.True(t, proto.Equal(cursor, cursors.GetCursors()[0]))

	marks, err := b.client.MarkBackup(ctx, &historyv1.MarkBackupRequest{})
	require.NoError(t, err)
	require.Len(t, marks.GetMarks(), 1)
	watermark, err := b.client.GetWatermark(ctx, &historyv1.GetWatermarkRequest{Partition: uint32(worker.Partition)})
	require.NoError(t, err)
	require.True(t, proto.Equal(worker.Watermark, watermark.GetBackup()))
}

func TestTheLevelOfAnInstallation(t *testing.T) {
	b := newBed(t)
	installation, err := b.client.GetInstallation(t.Context(), &historyv1.GetInstallationRequest{})
	require.NoError(t, err)
	require.Equal(t, uint32(conversation.MaxLevel()), installation.GetLevel())
	require.Equal(t, uint32(storetest.Partitions), installation.GetPartitions())
	raised, err := b.client.RaiseLevel(t.Context(), &historyv1.RaiseLevelRequest{Level: uint32(conversation.MaxLevel())})
	require.NoError(t, err)
	require.Equal(t, uint32(conversation.MaxLevel()), raised.GetLevel())
	_, err = b.client.RaiseLevel(t.Context(), &historyv1.RaiseLevelRequest{Level: uint32(conversation.MaxLevel()) + 1})
	require.Contains(t, requireCode(t, codes.FailedPrecondition, err).Message(), "install a later version everywhere first")
	require.NoError(t, b.store.RaiseLevel(t.Context(), conversation.MaxLevel()+1))
	_, err = b.client.RaiseLevel(t.Context(), &historyv1.RaiseLevelRequest{Level: uint32(conversation.MaxLevel())})
	require.Contains(t, requireCode(t, codes.FailedPrecondition, err).Message(), "never falls")
}

// TestAnErasureIsInTheLedgerBeforeItIsCommitted: an erasure that cannot be recorded is not committed, and an erasure whose
// worker has lost its partition is not recorded.
func TestAnErasureIsInTheLedgerBeforeItIsCommitted(t *testing.T) {
	b := newBed(t)
	directory := filepath.Join(t.TempDir(), "away")
	path := filepath.Join(directory, "erased.jsonl")
	server := history.New(history.Config{EraseLedger: path}, b.store, quiet(), prometheus.NewRegistry())
	defer func() { require.NoError(t, server.Close()) }()
	worker, batch := creation(t, "bob")
	worker.Store = b.store
	id := batch.GetEvents()[0].GetConversationId()
	b.commit(t, worker, batch)
	b.commit(t, worker, worker.Batch(worker.Apply(t, worker.Command(id, "alice", storetest.Message("2")))...))
	hash := storetest.ReadAll(t, b.store, id)[1].GetHash()

	erase := worker.Batch(worker.Apply(t, worker.Command(id, string(conversation.ServerUser), storetest.Erase(&conversationv1.Erase{Seqs: []uint64{2}})))...)
	_, err := server.Append(t.Context(), erase)
	requireCode(t, codes.Unavailable, err)
	require.Len(t, storetest.ReadAll(t, b.store, id), 2)

	require.NoError(t, os.Mkdir(directory, 0o700))
	stale := proto.CloneOf(erase)
	stale.Expected.Epoch--
	_, err = server.Append(t.Context(), stale)
	requireCode(t, codes.Aborted, err)
	require.NoFileExists(t, path)

	_, err = server.Append(t.Context(), erase)
	require.NoError(t, err)
	entries, damaged, err := ledger.Read(path)
	require.NoError(t, err)
	require.Zero(t, damaged)
	require.Len(t, entries, 1)
	require.Equal(t, []uint64{2}, entries[0].Seqs)
	require.Equal(t, ids.Seq(3), entries[0].Seq)
	require.Len(t, entries[0].Hashes, 1)
	require.Equal(t, hash[:8], decodeHex(t, entries[0].Hashes[0]))
	require.Empty(t, storetest.VerifyLog(t, b.store, id)[1].GetBody())
}
