package history_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/postgrestest"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history"
	"github.com/runnelhq/runnel/services/history/store"
	"github.com/runnelhq/runnel/services/history/store/storetest"
)

// readings returns all metrics of a registry by name and labels; for histograms the number of observations.
func readings(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	require.NoError(t, err)
	all := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			labels := make([]string, 0, len(m.GetLabel()))
			for _, label := range m.GetLabel() {
				labels = append(labels, label.GetValue())
			}
			name := fmt.Sprintf("%s{%s}", strings.TrimPrefix(family.GetName(), "runnel_history_"), strings.Join(labels, ","))
			// Only one of these exists.
			all[name] = float64(m.GetHistogram().GetSampleCount()) + m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return all
}

// TestEveryMetricMoves causes each condition and checks which metrics change. At the end every metric must have changed.
func TestEveryMetricMoves(t *testing.T) {
	b := newBed(t)
	moved := map[string]bool{}
	before := readings(t, b.registry)
	note := func(want ...string) {
		t.Helper()
		after := readings(t, b.registry)
		for name, value := range after {
			moved[name] = moved[name] || value != before[name]
		}
		for _, name := range want {
			require.Contains(t, after, name)
			require.Greater(t, after[name], before[name], "%s did not move", name)
		}
		before = after
	}
	ctx := t.Context()
	worker, batch := creation(t, "bob")
	id := batch.GetEvents()[0].GetConversationId()
	response, err := b.client.Append(ctx, batch)
	require.NoError(t, err)
	note("append_events{}", "operation_seconds{sqlite,append}", "commits_total{}")
	worker.Watermark = after(batch, response)

	again := worker.Batch(batch.GetEvents()...)
	_, err = b.client.Append(ctx, again)
	require.NoError(t, err)
	note("duplicates_total{}")

	put := worker.Batch()
	put.DeadLetters = []*historyv1.DeadLetter{{Sequence: 1}, {Sequence: 2}}
	put.Refusals = []*historyv1.Refusal{refusal(id, "alice", batch.GetEvents()[0].GetCommandId())}
	response, err = b.client.Append(ctx, put)
	require.NoError(t, err)
	note("dead_letters_total{}", "refusals_total{}")
	require.InDelta(t, 2, before["dead_letters_total{}"], 0)

	worker.Watermark = after(put, response)
	back := worker.Batch()
	back.Next.Sequence = 0
	_, err = b.client.Append(ctx, back)
	require.Error(t, err)
	note("refused_total{append,position}")
	back.BeginEpoch, back.Next.Sequence = true, 1
	response, err = b.client.Append(ctx, back)
	require.NoError(t, err)
	note("watermark_rewinds_total{}")

	// Every operation, with valid and invalid requests.
	key := &historyv1.CommandKey{ConversationId: id, Sender: "alice", CommandId: batch.GetEvents()[0].GetCommandId()}
	letter := store.DeadLetterKey{Partition: worker.Partition, Stream: put.GetNext().GetStream(), Sequence: 1}.ID()
	for _, op := range []struct {
		name      string
		good, bad func() error
	}{
		{"append", nil, func() error { _, err := b.client.Append(ctx, &historyv1.AppendRequest{}); return err }},
		{
			"watermark",
			func() error { _, err := b.client.GetWatermark(ctx, &historyv1.GetWatermarkRequest{}); return err },
			func() error {
				_, err := b.client.GetWatermark(ctx, &historyv1.GetWatermarkRequest{Partition: 99})
				return err
			},
		},
		{
			"lease",
			func() error {
				_, err := b.client.Lease(ctx, &historyv1.LeaseRequest{Worker: "w", TtlMs: 60_000})
				return err
			},
			func() error { _, err := b.client.Lease(ctx, &historyv1.LeaseRequest{}); return err },
		},
		{
			"conversations",
			func() error {
				_, err := b.client.GetConversations(ctx, &historyv1.GetConversationsRequest{ConversationIds: []string{id}})
				return err
			},
			func() error {
				_, err := b.client.GetConversations(ctx, &historyv1.GetConversationsRequest{ConversationIds: []string{""}})
				return err
			},
		},
		{
			"commands",
			func() error {
				_, err := b.client.FindCommands(ctx, &historyv1.FindCommandsRequest{Commands: []*historyv1.CommandKey{key}})
				return err
			},
			func() error {
				_, err := b.client.FindCommands(ctx, &historyv1.FindCommandsRequest{Commands: []*historyv1.CommandKey{{}}})
				return err
			},
		},
		{
			"read",
			func() error { _, err := b.client.Read(ctx, &historyv1.ReadRequest{ConversationId: id}); return err },
			func() error { _, err := b.client.Read(ctx, &historyv1.ReadRequest{}); return err },
		},
		{
			"list_conversations",
			func() error {
				_, err := b.client.ListConversations(ctx, &historyv1.ListConversationsRequest{UserId: "bob"})
				return err
			},
			func() error {
				_, err := b.client.ListConversations(ctx, &historyv1.ListConversationsRequest{})
				return err
			},
		},
		{
			"list_members",
			func() error {
				_, err := b.client.ListMembers(ctx, &historyv1.ListMembersRequest{ConversationId: id})
				return err
			},
			func() error { _, err := b.client.ListMembers(ctx, &historyv1.ListMembersRequest{}); return err },
		},
		{
			"compare_memberships",
			func() error {
				_, err := b.client.CompareMemberships(ctx, &historyv1.CompareMembershipsRequest{})
				return err
			},
			func() error {
				_, err := b.client.CompareMemberships(ctx, &historyv1.CompareMembershipsRequest{SinceMs: -1})
				return err
			},
		},
		{
			"find_memberships",
			func() error {
				_, err := b.client.FindMemberships(ctx, &historyv1.FindMembershipsRequest{UserId: "bob", ConversationIds: []string{id}})
				return err
			},
			func() error {
				_, err := b.client.FindMemberships(ctx, &historyv1.FindMembershipsRequest{})
				return err
			},
		},
		{
			"count_memberships",
			func() error {
				_, err := b.client.CountMemberships(ctx, &historyv1.CountMembershipsRequest{UserIds: []string{"bob"}})
				return err
			},
			func() error {
				_, err := b.client.CountMemberships(ctx, &historyv1.CountMembershipsRequest{UserIds: []string{""}})
				return err
			},
		},
		{
			"heads",
			func() error { _, err := b.client.Heads(ctx, &historyv1.HeadsRequest{}); return err },
			func() error {
				_, err := b.client.Heads(ctx, &historyv1.HeadsRequest{ConversationIds: []string{""}})
				return err
			},
		},
		{
			"save_cursors",
			func() error { _, err := b.client.SaveCursors(ctx, &historyv1.SaveCursorsRequest{}); return err },
			func() error {
				_, err := b.client.SaveCursors(ctx, &historyv1.SaveCursorsRequest{Updates: []*historyv1.CursorUpdate{{}}})
				return err
			},
		},
		{"list_leases", func() error { _, err := b.client.ListLeases(ctx, &historyv1.ListLeasesRequest{}); return err }, nil},
		{
			"move_partition",
			func() error {
				_, err := b.client.MovePartition(ctx, &historyv1.MovePartitionRequest{Worker: "w"})
				return err
			},
			func() error {
				_, err := b.client.MovePartition(ctx, &historyv1.MovePartitionRequest{Worker: " "})
				return err
			},
		},
		{
			"list_dead_letters",
			func() error { _, err := b.client.ListDeadLetters(ctx, &historyv1.ListDeadLettersRequest{}); return err },
			func() error {
				_, err := b.client.ListDeadLetters(ctx, &historyv1.ListDeadLettersRequest{After: "x"})
				return err
			},
		},
		{
			"get_dead_letter",
			func() error {
				_, err := b.client.GetDeadLetter(ctx, &historyv1.GetDeadLetterRequest{DeadLetterId: letter})
				return err
			},
			func() error { _, err := b.client.GetDeadLetter(ctx, &historyv1.GetDeadLetterRequest{}); return err },
		},
		{
			"drop_dead_letter",
			func() error {
				_, err := b.client.DropDeadLetter(ctx, &historyv1.DropDeadLetterRequest{DeadLetterId: letter})
				return err
			},
			func() error { _, err := b.client.DropDeadLetter(ctx, &historyv1.DropDeadLetterRequest{}); return err },
		},
		{
			"revoke_user",
			func() error {
				_, err := b.client.RevokeUser(ctx, &historyv1.RevokeUserRequest{UserId: "bob"})
				return err
			},
			func() error { _, err := b.client.RevokeUser(ctx, &historyv1.RevokeUserRequest{}); return err },
		},
		{
			"get_revocations",
			func() error { _, err := b.client.GetRevocations(ctx, &historyv1.GetRevocationsRequest{}); return err },
			func() error {
				_, err := b.client.GetRevocations(ctx, &historyv1.GetRevocationsRequest{SinceMs: -1})
				return err
			},
		},
		{
			"facts",
			func() error { _, err := b.client.GetFacts(ctx, &historyv1.GetFactsRequest{}); return err },
			func() error {
				_, err := b.client.GetFacts(ctx, &historyv1.GetFactsRequest{Needs: []*historyv1.Need{{}}})
				return err
			},
		},
		{
			"read_messages",
			func() error {
				_, err := b.client.ReadMessages(ctx, &historyv1.ReadMessagesRequest{ConversationId: id, Viewer: "bob", Kinds: conversation.MessageKinds()})
				return err
			},
			func() error { _, err := b.client.ReadMessages(ctx, &historyv1.ReadMessagesRequest{}); return err },
		},
		{
			"list_refusals",
			func() error { _, err := b.client.ListRefusals(ctx, &historyv1.ListRefusalsRequest{}); return err },
			func() error {
				_, err := b.client.ListRefusals(ctx, &historyv1.ListRefusalsRequest{Partition: 99})
				return err
			},
		},
		{
			"read_feed",
			func() error { _, err := b.client.ReadFeed(ctx, &historyv1.ReadFeedRequest{}); return err },
			func() error { _, err := b.client.ReadFeed(ctx, &historyv1.ReadFeedRequest{Partition: 99}); return err },
		},
		{
			"get_feed_cursors",
			func() error {
				_, err := b.client.GetFeedCursors(ctx, &historyv1.GetFeedCursorsRequest{Reader: "r"})
				return err
			},
			func() error { _, err := b.client.GetFeedCursors(ctx, &historyv1.GetFeedCursorsRequest{}); return err },
		},
		{
			"save_feed_cursor",
			func() error {
				_, err := b.client.SaveFeedCursor(ctx, &historyv1.SaveFeedCursorRequest{Reader: "r"})
				return err
			},
			func() error { _, err := b.client.SaveFeedCursor(ctx, &historyv1.SaveFeedCursorRequest{}); return err },
		},
		{"get_installation", func() error { _, err := b.client.GetInstallation(ctx, &historyv1.GetInstallationRequest{}); return err }, nil},
		{
			"raise_level",
			func() error {
				_, err := b.client.RaiseLevel(ctx, &historyv1.RaiseLevelRequest{Level: uint32(conversation.MaxLevel())})
				return err
			},
			func() error { _, err := b.client.RaiseLevel(ctx, &historyv1.RaiseLevelRequest{}); return err },
		},
		{
			"mark_backup",
			func() error { _, err := b.client.MarkBackup(ctx, &historyv1.MarkBackupRequest{}); return err },
			func() error {
				_, err := b.client.MarkBackup(ctx, &historyv1.MarkBackupRequest{Marks: []*historyv1.BackupMark{{Partition: 99}}})
				return err
			},
		},
	} {
		if op.good != nil {
			require.NoError(t, op.good(), op.name)
			note("operation_seconds{sqlite," + op.name + "}")
		}
		if op.bad != nil {
			require.Error(t, op.bad(), op.name)
			note("refused_total{" + op.name + ",invalid}")
		}
	}
	refuse := func(operation, reason string, err error) {
		t.Helper()
		require.Error(t, err)
		note("refused_total{" + operation + "," + reason + "}")
	}
	_, err = b.client.Append(ctx, batch)
	refuse("append", "watermark", err)
	worker.Watermark = after(back, response)
	worker.Apply(t, worker.Command(id, "alice", storetest.Message("never appended")))
	_, err = b.client.Append(ctx, worker.Batch(worker.Apply(t, worker.Command(id, "alice", storetest.Message("a hole before it")))...))
	refuse("append", "seq_taken", err)
	_, err = b.client.Read(ctx, &historyv1.ReadRequest{ConversationId: id, Viewer: "stranger"})
	refuse("read", "not_found", err)
	_, err = b.client.GetDeadLetter(ctx, &historyv1.GetDeadLetterRequest{DeadLetterId: letter})
	refuse("get_dead_letter", "not_found", err)
	_, err = b.client.ReadFeed(ctx, &historyv1.ReadFeedRequest{Partition: uint32(worker.Partition), After: &historyv1.Position{Epoch: 1, Sequence: 1}})
	refuse("read_feed", "fork", err)
	_, err = b.client.RaiseLevel(ctx, &historyv1.RaiseLevelRequest{Level: 99})
	refuse("raise_level", "level", err)

	require.Eventually(t, func() bool { return readings(t, b.registry)["sqlite_checkpoints_total{}"] > 0 }, time.Minute, time.Millisecond)
	moved["sqlite_checkpoints_total{}"] = true
	for _, name := range []string{"sqlite_database_bytes{}", "sqlite_log_bytes{}", "connections_limit{}", "connections{idle}"} {
		require.Positive(t, before[name], name)
		moved[name] = true
	}

	require.NoError(t, b.store.Close())
	_, err = b.client.Append(ctx, worker.Batch())
	refuse("append", "unavailable", err)

	// Conditions that cannot be caused with a healthy store.
	faulty := &faultyStore{Store: b.store}
	broken := &bed{registry: prometheus.NewRegistry()}
	server := history.New(history.Config{Timeout: time.Millisecond}, faulty, slog.New(slog.DiscardHandler), broken.registry)
	for reason, fault := range map[string]error{
		"defect": store.ErrDefect, "too_large": store.ErrTooLarge, "gap": &store.GapError{},
		"unavailable": context.DeadlineExceeded, // the service's own time limit, not the caller's
	} {
		faulty.err = fault
		_, err = server.GetConversations(ctx, &historyv1.GetConversationsRequest{})
		require.Error(t, err)
		require.InDelta(t, 1, readings(t, broken.registry)["refused_total{conversations,"+reason+"}"], 0, reason)
	}
	// A defect of the database is no fault of the request: only a worker is told so, which has to get past a command.
	faulty.err = store.ErrDefect
	_, err = server.GetConversations(ctx, &historyv1.GetConversationsRequest{})
	require.Equal(t, codes.InvalidArgument, status.Code(err))
	_, err = server.ListConversations(ctx, &historyv1.ListConversationsRequest{UserId: "ann", Limit: 1})
	require.Equal(t, codes.Internal, status.Code(err))
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	faulty.err = context.Canceled
	_, err = server.GetConversations(cancelled, &historyv1.GetConversationsRequest{})
	require.Error(t, err)
	require.InDelta(t, 1, readings(t, broken.registry)["refused_total{conversations,given_up}"], 0)
	faulty.stats = store.Stats{Backend: "sqlite", Busy: 3, Open: 4, Waiting: 2, File: store.FileStats{FailedCopies: 7}}
	after := readings(t, broken.registry)
	require.InDelta(t, 3, after["connections{busy}"], 0)
	require.InDelta(t, 1, after["connections{idle}"], 0)
	require.InDelta(t, 2, after["waiting{}"], 0)
	require.InDelta(t, 7, after["sqlite_checkpoint_failures_total{}"], 0)
	for _, name := range []string{"connections{busy}", "waiting{}", "sqlite_checkpoint_failures_total{}"} {
		moved[name] = true
	}
	_, err = server.Read(ctx, &historyv1.ReadRequest{ConversationId: id})
	require.NoError(t, err)
	require.InDelta(t, 1, readings(t, broken.registry)["damaged_events_total{}"], 0)
	moved["damaged_events_total{}"] = true

	var never []string
	for name := range before {
		if !moved[name] && !strings.HasPrefix(name, "refused_total{") { // one for every operation and reason, including some that cannot occur
			never = append(never, name)
		}
	}
	slices.Sort(never)
	require.Empty(t, never)
}

// refusal returns a valid refusal.
func refusal(id, sender, command string) *historyv1.Refusal {
	return &historyv1.Refusal{
		Command:    &historyv1.CommandKey{ConversationId: id, Sender: sender, CommandId: command},
		Commitment: make([]byte, chain.Size), TimeMs: 1_790_000_000_000,
		Error: &conversationv1.Error{Code: conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN, Message: "no"},
	}
}

// faultyStore returns the errors of a database with faults.
type faultyStore struct {
	history.Store

	err   error
	stats store.Stats
}

func (s *faultyStore) Conversations(ctx context.Context, _ []string) ([]*historyv1.ConversationState, error) {
	if s.err == context.DeadlineExceeded { //nolint:errorlint // it is the test's own
		<-ctx.Done()
	}
	return nil, s.err
}

func (s *faultyStore) ListConversations(context.Context, *historyv1.ListConversationsRequest) (*historyv1.ListConversationsResponse, error) {
	return nil, s.err
}

func (s *faultyStore) Read(context.Context, *historyv1.ReadRequest) (*historyv1.ReadResponse, error) {
	return &historyv1.ReadResponse{Events: []*conversationv1.Event{{}}}, nil
}

func (s *faultyStore) Stats() store.Stats { return s.stats }

func TestPostgreSQLTellsOfItsConnections(t *testing.T) {
	registry := prometheus.NewRegistry()
	opened, err := history.Open(t.Context(), history.Config{Database: postgrestest.Start(t), Connections: 3}, 1, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer func() { require.NoError(t, opened.Close()) }()
	server := history.New(history.Config{}, opened, slog.New(slog.DiscardHandler), registry)
	_, err = server.Heads(t.Context(), &historyv1.HeadsRequest{})
	require.NoError(t, err)
	got := readings(t, registry)
	require.InDelta(t, 3, got["connections_limit{}"], 0)
	require.Positive(t, got["connections{idle}"])
	require.Contains(t, got, "connections{busy}")
	require.Contains(t, got, "connection_timeouts_total{}")
	require.InDelta(t, 1, got["operation_seconds{postgres,heads}"], 0)
	require.NotContains(t, got, "sqlite_log_bytes{}", "a statistic that the database does not have is not reported")
	problems, err := testutil.GatherAndLint(registry)
	require.NoError(t, err)
	require.Empty(t, problems)
}

// TestNoMetricHoldsNames checks that cardinality is fixed: whatever is requested, no user, conversation or worker becomes a
// label.
func TestNoMetricHoldsNames(t *testing.T) {
	b := newBed(t)
	count := len(readings(t, b.registry))
	for i := range 20 {
		_, err := b.client.RevokeUser(t.Context(), &historyv1.RevokeUserRequest{UserId: fmt.Sprintf("user-%d", i)})
		require.NoError(t, err)
		_, err = b.client.Lease(t.Context(), &historyv1.LeaseRequest{Worker: fmt.Sprintf("worker-%d", i), TtlMs: 1000})
		require.NoError(t, err)
	}
	require.Len(t, readings(t, b.registry), count)
}

func TestADatabaseFileIsMeasured(t *testing.T) {
	opened, err := history.Open(t.Context(), history.Config{Database: "sqlite:" + filepath.Join(t.TempDir(), "h.db")}, 1, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer func() { require.NoError(t, opened.Close()) }()
	require.Positive(t, opened.Stats().File.DatabaseBytes)
}
