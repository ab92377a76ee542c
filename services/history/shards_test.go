package history_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/shards"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store/storetest"
)

// Two history services, each with a database of its own and half of the partitions, are one store to their client.
func TestTwoDatabasesAreOneStore(t *testing.T) {
	beds := []*bed{newBed(t), newBed(t)}
	router, err := shards.New(storetest.Partitions, beds[0].client, beds[1].client)
	require.NoError(t, err)
	ctx := t.Context()

	// One group in every partition.
	groups := map[ids.Partition]string{}
	for n := int64(0); len(groups) < storetest.Partitions; n++ {
		worker := storetest.NewWorker(nil, 0, storetest.ClockAt(n))
		create := worker.CreateGroup("alice", "our group", "bob")
		worker.Partition = conversation.Partition(ids.Conversation(create.GetConversationId()), storetest.Partitions)
		if groups[worker.Partition] != "" {
			continue
		}
		batch := worker.Batch(worker.Apply(t, create)...)
		groups[worker.Partition] = batch.GetEvents()[0].GetConversationId()
		response, err := router.Append(ctx, batch)
		require.NoError(t, err)
		watermark, err := router.GetWatermark(ctx, &historyv1.GetWatermarkRequest{Partition: uint32(worker.Partition)})
		require.NoError(t, err)
		require.Equal(t, after(batch, response).GetSequence(), watermark.GetWatermark().GetSequence())
		_, err = router.Append(ctx, batch)
		require.Equal(t, codes.Aborted, status.Code(err), "the watermark is checked where the partition is")
	}
	var list []string
	for partition, id := range groups {
		list = append(list, id)
		for shard, b := range beds {
			heads, err := b.client.Heads(ctx, &historyv1.HeadsRequest{ConversationIds: []string{id}})
			require.NoError(t, err)
			require.Equal(t, int(partition)%len(beds) == shard, len(heads.GetHeads()) == 1, "partition %d is in one database only", partition)
		}
		read, err := router.Read(ctx, &historyv1.ReadRequest{ConversationId: id, Viewer: "bob"})
		require.NoError(t, err)
		require.Len(t, read.GetEvents(), 1)
		members, err := router.ListMembers(ctx, &historyv1.ListMembersRequest{ConversationId: id, Viewer: "bob"})
		require.NoError(t, err)
		require.Len(t, members.GetMembers(), 2)
	}
	slices.Sort(list)

	heads, err := router.Heads(ctx, &historyv1.HeadsRequest{ConversationIds: list})
	require.NoError(t, err)
	require.Len(t, heads.GetHeads(), len(list))
	states, err := router.GetConversations(ctx, &historyv1.GetConversationsRequest{ConversationIds: list})
	require.NoError(t, err)
	require.Len(t, states.GetConversations(), len(list))

	// The list of a user is in order over both databases, whatever the size of a page.
	for _, limit := range []uint32{1, 2, 3, 5, 15, 16, 100} {
		var listed []string
		for request := (&historyv1.ListConversationsRequest{UserId: "bob", Limit: limit}); len(listed) <= len(list); {
			page, err := router.ListConversations(ctx, request)
			require.NoError(t, err)
			require.LessOrEqual(t, len(page.GetConversations()), int(limit))
			for _, summary := range page.GetConversations() {
				listed = append(listed, summary.GetConversationId())
			}
			if !page.GetMore() {
				break
			}
			require.NotEmpty(t, page.GetConversations(), "a page that has more leads on")
			request.After = listed[len(listed)-1]
		}
		require.Equal(t, list, listed, "in pages of %d", limit)
	}
	counts, err := router.CountMemberships(ctx, &historyv1.CountMembershipsRequest{UserIds: []string{"bob"}})
	require.NoError(t, err)
	require.EqualValues(t, len(list), counts.GetCounts()[0].GetConversations())

	// Cursors go where their conversations are.
	var moved []*historyv1.CursorUpdate
	for _, id := range list {
		moved = append(moved, &historyv1.CursorUpdate{ConversationId: id, Cursor: &conversationv1.Cursor{UserId: "bob", DeliveredSeq: 1}})
	}
	_, err = router.SaveCursors(ctx, &historyv1.SaveCursorsRequest{Updates: moved})
	require.NoError(t, err)
	page, err := router.ListConversations(ctx, &historyv1.ListConversationsRequest{UserId: "bob"})
	require.NoError(t, err)
	for _, summary := range page.GetConversations() {
		require.EqualValues(t, 1, summary.GetCursor().GetDeliveredSeq())
	}

	// A fact is returned for the need that asked for it.
	var needs []*historyv1.Need
	for i := range list {
		needs = append(needs, &historyv1.Need{ConversationId: list[len(list)-1-i], Seq: 1})
	}
	facts, err := router.GetFacts(ctx, &historyv1.GetFactsRequest{Needs: needs})
	require.NoError(t, err)
	seen := map[uint32]bool{}
	for _, fact := range facts.GetFacts() {
		seen[fact.GetNeed()] = true
	}
	require.Len(t, seen, len(needs))

	// One worker has leases of all partitions, and one feed leads through each partition.
	lease, err := router.Lease(ctx, &historyv1.LeaseRequest{Worker: "w", TtlMs: 60_000})
	require.NoError(t, err)
	require.Len(t, lease.GetHeld(), storetest.Partitions)
	for partition, id := range groups {
		feed, err := router.ReadFeed(ctx, &historyv1.ReadFeedRequest{Partition: uint32(partition)})
		require.NoError(t, err)
		require.Equal(t, id, feed.GetEntries()[0].GetEvent().GetConversationId())
		_, err = router.SaveFeedCursor(ctx, &historyv1.SaveFeedCursorRequest{Reader: "index", Cursor: &historyv1.FeedCursor{
			Partition: uint32(partition), Position: feed.GetEntries()[0].GetPosition(),
		}})
		require.NoError(t, err)
	}
	cursors, err := router.GetFeedCursors(ctx, &historyv1.GetFeedCursorsRequest{Reader: "index"})
	require.NoError(t, err)
	require.Len(t, cursors.GetCursors(), storetest.Partitions)
	marked, err := router.MarkBackup(ctx, &historyv1.MarkBackupRequest{})
	require.NoError(t, err)
	require.Len(t, marked.GetMarks(), storetest.Partitions)
	for i, mark := range marked.GetMarks() {
		require.EqualValues(t, i, mark.GetPartition())
		require.NotZero(t, mark.GetWatermark().GetSequence(), "the mark of the shard that has the partition")
	}
}

// All shards are of one installation, and are raised to one level.
func TestShardsAgree(t *testing.T) {
	beds := []*bed{newBed(t), newBed(t)}
	router, err := shards.New(storetest.Partitions, beds[0].client, beds[1].client)
	require.NoError(t, err)
	_, err = beds[0].client.RaiseLevel(t.Context(), &historyv1.RaiseLevelRequest{Level: uint32(conversation.MaxLevel())})
	require.NoError(t, err)
	installation, err := router.GetInstallation(t.Context(), &historyv1.GetInstallationRequest{})
	require.NoError(t, err)
	other, err := beds[1].client.GetInstallation(t.Context(), &historyv1.GetInstallationRequest{})
	require.NoError(t, err)
	require.Equal(t, other.GetLevel(), installation.GetLevel(), "the lowest level counts")
	_, err = router.RaiseLevel(t.Context(), &historyv1.RaiseLevelRequest{Level: uint32(conversation.MaxLevel())})
	require.NoError(t, err)
	installation, err = router.GetInstallation(t.Context(), &historyv1.GetInstallationRequest{})
	require.NoError(t, err)
	require.EqualValues(t, conversation.MaxLevel(), installation.GetLevel())

	wrong, err := shards.New(storetest.Partitions*2, beds[0].client, beds[1].client)
	require.NoError(t, err)
	_, err = wrong.GetInstallation(t.Context(), &historyv1.GetInstallationRequest{})
	require.ErrorContains(t, err, fmt.Sprintf("partitions %d", storetest.Partitions*2))
}
