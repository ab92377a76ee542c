package storetest

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/ids"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

func testLifecycle(t *testing.T, subject Subject) {
	t.Helper()
	t.Run("everything is kept after reopening", func(t *testing.T) {
		db, worker, id := group(t, subject)
		want := worker.Commit(t, worker.Command(id, "alice", Message("kept")))
		require.NoError(t, db.Close())
		again, err := db.Reopen(t.Context(), Partitions)
		require.NoError(t, err)
		defer func() { require.NoError(t, again.Close()) }()
		requireEvents(t, want, VerifyLog(t, again, id)[1:])
		requireWatermark(t, again, 3, worker.Watermark)
	})

	t.Run("a database of the former schema is refused with what to do", func(t *testing.T) {
		err := subject.New(t).OpenFormer(t)
		require.ErrorIs(t, err, store.ErrFormer)
		require.ErrorContains(t, err, "start with a new data directory")
	})

	t.Run("a database to which a later version has only added is opened", func(t *testing.T) {
		db, worker, id := group(t, subject)
		db.Exec(t, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, true)")
		want := worker.Commit(t, worker.Command(id, "alice", Message("kept")))
		again, err := db.Reopen(t.Context(), Partitions)
		require.NoError(t, err)
		defer func() { require.NoError(t, again.Close()) }()
		requireEvents(t, want, VerifyLog(t, again, id)[1:])
		require.NoError(t, again.Ping(t.Context()))
	})

	t.Run("a database whose tables a later version has changed is refused with what to do", func(t *testing.T) {
		db := subject.New(t)
		db.Exec(t, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (1000, true)")
		_, err := db.Reopen(t.Context(), Partitions)
		require.ErrorIs(t, err, store.ErrNewer)
		require.ErrorContains(t, err, "its schema version is 1000")
		require.ErrorContains(t, err, "start that version")
		db.Exec(t, "DELETE FROM goose_db_version WHERE version_id = 1000")
		again, err := db.Reopen(t.Context(), Partitions)
		require.NoError(t, err, "nothing was changed")
		require.NoError(t, again.Close())
	})

	t.Run("a ping writes", func(t *testing.T) {
		db := subject.New(t)
		require.Zero(t, db.Count(t, "SELECT count(*) FROM meta WHERE key = 'probe'"))
		for range 2 {
			require.NoError(t, db.Ping(t.Context()))
		}
		require.Equal(t, 1, db.Count(t, "SELECT count(*) FROM meta WHERE key = 'probe'"))
		db.Exec(t, "ALTER TABLE meta RENAME TO lost")
		require.ErrorIs(t, db.Ping(t.Context()), store.ErrUnavailable)
		db.Exec(t, "ALTER TABLE lost RENAME TO meta")
		require.NoError(t, db.Ping(t.Context()))
	})

	t.Run("another number of partitions is refused with what to do", func(t *testing.T) {
		db := subject.New(t)
		_, err := db.Reopen(t.Context(), Partitions/2)
		require.ErrorContains(t, err, "created with 16 partitions, not 8")
		require.ErrorContains(t, err, "--nats.partitions=16")
	})

	t.Run("a closed store is unavailable", func(t *testing.T) {
		db, worker, id := group(t, subject)
		require.NoError(t, db.Ping(t.Context()))
		require.Equal(t, Partitions, db.Partitions())
		require.NoError(t, db.Close())
		ctx := t.Context()
		calls := map[string]func() error{
			"Append":    func() error { _, err := db.Append(ctx, worker.Batch()); return err },
			"Watermark": func() error { _, err := db.Watermark(ctx, 0); return err },
			"Lease": func() error {
				_, err := db.Lease(ctx, &historyv1.LeaseRequest{Worker: "w", TtlMs: 1})
				return err
			},
			"Conversations": func() error { _, err := db.Conversations(ctx, []string{id}); return err },
			"Commands": func() error {
				_, err := db.Commands(ctx, []*historyv1.CommandKey{{ConversationId: id, Sender: "a", CommandId: worker.clock.CommandID()}})
				return err
			},
			"Read": func() error { _, err := db.Read(ctx, &historyv1.ReadRequest{ConversationId: id}); return err },
			"ListConversations": func() error {
				_, err := db.ListConversations(ctx, &historyv1.ListConversationsRequest{UserId: "alice"})
				return err
			},
			"CompareMemberships": func() error {
				_, err := db.CompareMemberships(ctx, &historyv1.CompareMembershipsRequest{Users: []*historyv1.KnownMemberships{{UserId: "alice"}}})
				return err
			},
			"ListMembers": func() error {
				_, err := db.ListMembers(ctx, &historyv1.ListMembersRequest{ConversationId: id})
				return err
			},
			"Heads":          func() error { _, err := db.Heads(ctx, []string{id}); return err },
			"SaveCursors":    func() error { return db.SaveCursors(ctx, []*historyv1.CursorUpdate{cursor(id, "alice", 1, 1, 1, 1)}) },
			"Leases":         func() error { _, err := db.Leases(ctx); return err },
			"Move":           func() error { return db.Move(ctx, 0, "") },
			"DeadLetters":    func() error { _, err := db.DeadLetters(ctx, &historyv1.ListDeadLettersRequest{}); return err },
			"DeadLetter":     func() error { _, err := db.DeadLetter(ctx, store.DeadLetterKey{Stream: "1"}); return err },
			"DropDeadLetter": func() error { return db.DropDeadLetter(ctx, store.DeadLetterKey{Stream: "1"}) },
			"Revoke":         func() error { _, err := db.Revoke(ctx, "alice"); return err },
			"Revocations":    func() error { _, err := db.Revocations(ctx, &historyv1.GetRevocationsRequest{}); return err },
			"Facts":          func() error { _, err := db.Facts(ctx, []*historyv1.Need{{ConversationId: id, Seq: 1}}); return err },
			"ReadMessages": func() error {
				_, err := db.ReadMessages(ctx, &historyv1.ReadMessagesRequest{ConversationId: id, Viewer: "alice"})
				return err
			},
			"ReplaceViews":    func() error { _, err := db.ReplaceViews(ctx, ids.Conversation(id), 1, nil, nil); return err },
			"ConversationIDs": func() error { _, err := db.ConversationIDs(ctx, ""); return err },
			"Refusals":        func() error { _, err := db.Refusals(ctx, &historyv1.ListRefusalsRequest{}); return err },
			"ReadFeed":        func() error { _, err := db.ReadFeed(ctx, 3, nil, 1); return err },
			"FeedCursors":     func() error { _, err := db.FeedCursors(ctx, "r"); return err },
			"SaveFeedCursor":  func() error { return db.SaveFeedCursor(ctx, "r", &historyv1.FeedCursor{}) },
			"Level":           func() error { _, err := db.Level(ctx); return err },
			"RaiseLevel":      func() error { return db.RaiseLevel(ctx, 1) },
			"MarkBackup":      func() error { _, err := db.MarkBackup(ctx, nil); return err },
			"BackupMark":      func() error { _, err := db.BackupMark(ctx, 3); return err },
			"RaiseEpochs":     func() error { _, err := db.RaiseEpochs(ctx); return err },
			"AcceptLoss":      func() error { _, err := db.AcceptLoss(ctx, 3, 99); return err },
			"EraseAgain": func() error {
				_, err := db.EraseAgain(ctx, ids.Conversation(id), &historyv1.EraseEvents{Sender: "alice"})
				return err
			},
			"Hashes": func() error { _, err := db.Hashes(ctx, ids.Conversation(id), []uint64{1}); return err },
			"Ping":   func() error { return db.Ping(ctx) },
		}
		for name, call := range calls {
			require.ErrorIs(t, call(), store.ErrUnavailable, name)
		}
	})

	t.Run("a caller that has cancelled gets the error of its context", func(t *testing.T) {
		db, worker, id := group(t, subject)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := db.Append(ctx, worker.Batch(worker.Fork().Apply(t, worker.Command(id, "alice", Message("x")))...))
		require.ErrorIs(t, err, context.Canceled)
		_, err = db.Read(ctx, &historyv1.ReadRequest{ConversationId: id})
		require.ErrorIs(t, err, context.Canceled)
		// The store still works.
		worker.Commit(t, worker.Command(id, "alice", Message("y")))
	})
}
