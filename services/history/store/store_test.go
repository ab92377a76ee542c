package store_test

import (
	"slices"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

// TestLeases lets workers come, go, fall silent and misbehave, and checks after each request that its answer is the
// table, that nobody lost a lease that had not run out, and at the end that the live ones share evenly.
func TestLeases(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const ttl = 2000
		now := int64(1_790_000_000_000)
		leases := make([]store.Lease, rapid.IntRange(1, 20).Draw(t, "partitions"))
		for p := range leases {
			leases[p].Partition = uint32(p)
		}
		workers := map[string]int64{}
		call := func(request *historyv1.LeaseRequest) *historyv1.LeaseResponse {
			changed, response := store.Assign(now, leases, workers, request)
			for _, lease := range changed {
				before := leases[lease.Partition]
				stolen := before.Worker != request.GetWorker() && before.Worker != "" && before.UntilMs > now
				require.False(t, stolen, "a lease that had not run out went to another")
				leases[lease.Partition] = lease
			}
			workers[request.GetWorker()] = now + ttl
			if request.GetStopping() {
				delete(workers, request.GetWorker())
			}
			var held []uint32
			for _, lease := range leases {
				if lease.Worker == request.GetWorker() {
					require.Equal(t, now+ttl, lease.UntilMs, "what is held is renewed")
					held = append(held, lease.Partition)
				}
			}
			require.Equal(t, held, response.GetHeld())
			require.True(t, slices.IsSorted(response.GetHeld()))
			return response
		}
		names := []string{"a", "b", "c"}
		for range rapid.IntRange(0, 30).Draw(t, "steps") {
			now += rapid.Int64Range(0, 900).Draw(t, "pass")
			request := &historyv1.LeaseRequest{Worker: rapid.SampledFrom(names).Draw(t, "worker"), TtlMs: ttl, Stopping: rapid.Bool().Draw(t, "stopping")}
			for range rapid.IntRange(0, 3).Draw(t, "releases") {
				request.Release = append(request.Release, rapid.Uint32Range(0, uint32(len(leases)-1)).Draw(t, "release"))
			}
			for _, p := range call(request).GetHeld() {
				require.NotContains(t, request.GetRelease(), p, "what it gave back it does not get in the same call")
			}
		}
		// The well-behaved form: everybody calls in turn and gives back what is above its share.
		release := map[string][]uint32{}
		for range 8 {
			for _, name := range names {
				now += 100
				response := call(&historyv1.LeaseRequest{Worker: name, TtlMs: ttl, Release: release[name]})
				release[name] = response.GetHeld()[min(len(response.GetHeld()), int(response.GetShare())):]
			}
		}
		share := (len(leases) + 2) / 3
		total := 0
		for _, name := range names {
			response := call(&historyv1.LeaseRequest{Worker: name, TtlMs: ttl})
			require.LessOrEqual(t, len(response.GetHeld()), share)
			total += len(response.GetHeld())
		}
		require.Equal(t, len(leases), total)
	})
}

func TestMergedCursorsAreTheFurthestOfEach(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		updates := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) *historyv1.CursorUpdate {
			seq := rapid.Uint64Range(0, 4)
			return &historyv1.CursorUpdate{
				ConversationId: rapid.SampledFrom([]string{"x", "y"}).Draw(t, "conversation"),
				Cursor: &conversationv1.Cursor{
					UserId:       rapid.SampledFrom([]string{"a", "b"}).Draw(t, "user"),
					DeliveredSeq: seq.Draw(t, "delivered"), ReadSeq: seq.Draw(t, "read"),
				},
			}
		}), 0, 12).Draw(t, "updates")
		type key struct{ conversation, user string }
		want := map[key][2]uint64{}
		for _, update := range updates {
			c := update.GetCursor()
			if c.GetDeliveredSeq() > 0 || c.GetReadSeq() > 0 {
				k := key{update.GetConversationId(), c.GetUserId()}
				want[k] = [2]uint64{max(want[k][0], c.GetDeliveredSeq()), max(want[k][1], c.GetReadSeq())}
			}
		}
		got := map[key][2]uint64{}
		merged := store.MergeCursors(updates)
		for _, update := range merged {
			got[key{update.GetConversationId(), update.GetCursor().GetUserId()}] = [2]uint64{update.GetCursor().GetDeliveredSeq(), update.GetCursor().GetReadSeq()}
		}
		require.Equal(t, want, got)
		require.Len(t, merged, len(want))
	})
}

func TestMergingLeavesTheUpdatesAlone(t *testing.T) {
	one := &historyv1.CursorUpdate{ConversationId: "x", Cursor: &conversationv1.Cursor{UserId: "a", DeliveredSeq: 1}}
	two := &historyv1.CursorUpdate{ConversationId: "x", Cursor: &conversationv1.Cursor{UserId: "a", ReadSeq: 2}}
	updates := []*historyv1.CursorUpdate{two, one}
	require.Len(t, store.MergeCursors(updates), 1)
	require.Equal(t, []*historyv1.CursorUpdate{two, one}, updates)
	require.Zero(t, one.GetCursor().GetReadSeq())
}

func TestCommandIDsKeepTheirForm(t *testing.T) {
	for range 100 {
		id := uuid.Must(uuid.NewV7())
		decoded, ok := store.DecodeCommandID(id.String())
		require.True(t, ok)
		require.Equal(t, [16]byte(id), decoded)
		require.Equal(t, id.String(), store.EncodeCommandID(decoded[:]))
	}
	for _, bad := range []string{"", "x", "0192f3c0-0000-7000-8000-00000000000", "0192f3c0-0000-7000-8000-00000000000g"} {
		_, ok := store.DecodeCommandID(bad)
		require.False(t, ok)
	}
	require.Equal(t, "ff", store.EncodeCommandID([]byte{0xff}), "a damaged id is no id")
}

func TestABodyThatCannotBeDecodedDoesNotPassForErased(t *testing.T) {
	event := &conversationv1.Event{Commitment: []byte{1}}
	store.SetBody(event, []byte{0xff})
	require.Nil(t, event.GetBody())
	require.Nil(t, event.GetCommitment())
	erased := &conversationv1.Event{Commitment: []byte{1}}
	store.SetBody(erased, nil)
	require.Equal(t, []byte{1}, erased.GetCommitment())
}
