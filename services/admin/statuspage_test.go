package admin

import (
	"testing"

	"github.com/stretchr/testify/require"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

func TestPartitionsThatDoNotWorkNeedAttention(t *testing.T) {
	workers := []*historyv1.Worker{{Worker: "w1"}, {Worker: "w2"}}
	table := partitionTable(&adminv1.ListPartitionsResponse{Workers: workers, Partitions: []*adminv1.Partition{
		{Partition: 0, Owner: "w1", State: stateRunning, Lag: 7}, {Partition: 1, Owner: "w2", State: stateStarting},
	}})
	require.Equal(t, "1 of 2 running on w1 (1), w2 (1)", table.Summary)
	require.Empty(t, table.Attention, "one that is starting will run by itself")
	require.Empty(t, table.Marked)
	require.Equal(t, []string{"0", "w1", "running", "7", "0", ""}, table.Rows[0])

	table = partitionTable(&adminv1.ListPartitionsResponse{Partitions: []*adminv1.Partition{
		{Partition: 0, State: stateNoOwner},
		{Partition: 1, Owner: "w1", State: stateRunning},
		{Partition: 2, State: stateNoOwner},
		{Partition: 3, Owner: "w1", State: "stopped: a hole"},
		{Partition: 4, Owner: "w2", State: stateUnknown},
	}, Missing: []*adminv1.Missing{{Service: "delivery", Instance: "w2", Reason: "no answer"}}})
	require.Equal(t, "1 of 5 running on 0 workers", table.Summary)
	require.Equal(t, []int{0, 2, 3, 4}, table.Marked)
	require.Equal(t, "No worker owns 2 partitions: 0, 2; partition 3 is stopped: a hole, 4 is unknown; delivery w2 did not answer: no answer.", table.Attention)
	require.Equal(t, "nobody", table.Rows[0][1])

	all := make([]*adminv1.Partition, 16)
	for i := range all {
		all[i] = &adminv1.Partition{Partition: uint32(i), State: stateNoOwner}
	}
	require.Equal(t, "No worker owns 16 partitions: 0, 1, 2, 3, 4, 5, 6, 7 and 8 more.", partitionTable(&adminv1.ListPartitionsResponse{Partitions: all}).Attention)
}

func TestTheNewestDeadLettersAreShown(t *testing.T) {
	table := deadLetterTable(nil, false)
	require.Equal(t, "none", table.Summary)
	require.Empty(t, table.Attention)

	var letters []*historyv1.StoredDeadLetter
	for i, time := range []int64{5000, 1000, 7000, 3000, 0, 6000, 2000} {
		letters = append(letters, &historyv1.StoredDeadLetter{
			DeadLetterId: string(rune('a' + i)), Partition: 3, TimeMs: time, Letter: &historyv1.DeadLetter{Reason: "<b>poison</b>"},
		})
	}
	table = deadLetterTable(letters, false)
	require.Equal(t, "7", table.Summary)
	require.Contains(t, table.Attention, "7 dead letters")
	var ids []string
	for _, row := range table.Rows {
		ids = append(ids, row[3])
	}
	require.Equal(t, []string{"c", "f", "a", "d", "g"}, ids, "newest first")
	require.Equal(t, []string{"1970-01-01 00:00:07 UTC", "3", "<b>poison</b>", "c"}, table.Rows[0])
	require.Equal(t, "These are the 5 newest.", table.Note)

	table = deadLetterTable(letters, true)
	require.Equal(t, "more than 7", table.Summary)
	require.Equal(t, "These are the 5 newest of the first 7.", table.Note)
	require.Contains(t, deadLetterTable(letters[:1], false).Attention, "1 dead letter:")
	require.Equal(t, "unknown", deadLetterTable(letters[4:5], false).Rows[0][0])
}
