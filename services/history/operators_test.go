package history_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store/storetest"
)

func TestWhatOperatorsAskOverASocket(t *testing.T) {
	b := newBed(t)
	ctx := t.Context()
	_, err := b.client.Append(ctx, &historyv1.AppendRequest{
		Partition: 3, Next: &historyv1.Watermark{Stream: "1790000000000000000", Sequence: 43},
		DeadLetters: []*historyv1.DeadLetter{{Sequence: 42, Reason: "undecodable", Payload: []byte("?")}},
	})
	require.NoError(t, err)
	letters, err := b.client.ListDeadLetters(ctx, &historyv1.ListDeadLettersRequest{})
	require.NoError(t, err)
	require.Len(t, letters.GetDeadLetters(), 1)
	id := letters.GetDeadLetters()[0].GetDeadLetterId()
	require.Equal(t, "0003-1790000000000000000-0000000000000000042", id)
	letter, err := b.client.GetDeadLetter(ctx, &historyv1.GetDeadLetterRequest{DeadLetterId: id})
	require.NoError(t, err)
	require.Equal(t, []byte("?"), letter.GetDeadLetter().GetLetter().GetPayload())
	_, err = b.client.DropDeadLetter(ctx, &historyv1.DropDeadLetterRequest{DeadLetterId: id})
	require.NoError(t, err)
	_, err = b.client.DropDeadLetter(ctx, &historyv1.DropDeadLetterRequest{DeadLetterId: id})
	require.Contains(t, requireCode(t, codes.NotFound, err).Message(), "dead letter")
	_, err = b.client.GetDeadLetter(ctx, &historyv1.GetDeadLetterRequest{DeadLetterId: id})
	requireCode(t, codes.NotFound, err)

	_, err = b.client.Lease(ctx, &historyv1.LeaseRequest{Worker: "w", TtlMs: 600_000})
	require.NoError(t, err)
	_, err = b.client.MovePartition(ctx, &historyv1.MovePartitionRequest{Partition: 3, Worker: "nobody"})
	require.Contains(t, requireCode(t, codes.NotFound, err).Message(), "worker")
	_, err = b.client.MovePartition(ctx, &historyv1.MovePartitionRequest{Partition: 3, Worker: "w"})
	require.NoError(t, err)
	leases, err := b.client.ListLeases(ctx, &historyv1.ListLeasesRequest{})
	require.NoError(t, err)
	require.Len(t, leases.GetWorkers(), 1)
	require.Len(t, leases.GetLeases(), storetest.Partitions)
	require.Equal(t, "w", leases.GetLeases()[3].GetWanted())
	require.Equal(t, uint64(43), leases.GetLeases()[3].GetWatermark().GetSequence())

	revoked, err := b.client.RevokeUser(ctx, &historyv1.RevokeUserRequest{UserId: "mallory"})
	require.NoError(t, err)
	require.Positive(t, revoked.GetBeforeMs())
	list, err := b.client.ListConversations(ctx, &historyv1.ListConversationsRequest{UserId: "mallory"})
	require.NoError(t, err)
	require.Equal(t, revoked.GetBeforeMs(), list.GetRevokedBeforeMs())
	news, err := b.client.GetRevocations(ctx, &historyv1.GetRevocationsRequest{})
	require.NoError(t, err)
	require.Len(t, news.GetRevocations(), 1)
	require.Equal(t, "mallory", news.GetRevocations()[0].GetUserId())
	news, err = b.client.GetRevocations(ctx, &historyv1.GetRevocationsRequest{SinceMs: revoked.GetBeforeMs()})
	require.NoError(t, err)
	require.Empty(t, news.GetRevocations())
	require.NotContains(t, b.log.String(), "level=WARN")
	require.Equal(t, 1, strings.Count(b.log.String(), "level="), "only the database's name at the start is logged")
}
