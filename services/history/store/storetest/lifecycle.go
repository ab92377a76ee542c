package storetest

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

func testLifecycle(t *testing.T, subject Subject) {
	t.Helper()
	t.Run("everything is there after opening again", func(t *testing.T) {
		db, worker, id := group(t, subject)
		want := worker.Commit(t, worker.Command(id, "alice", Message("kept")))
		require.NoError(t, db.Close())
		again, err := db.Reopen(t.Context(), Partitions)
		require.NoError(t, err)
		defer func() { require.NoError(t, again.Close()) }()
		requireEvents(t, want, VerifyLog(t, again, id)[1:])
		requireWatermark(t, again, 3, worker.Watermark)
	})

	t.Run("a database of version 1 keeps what it has and gains what is new", func(t *testing.T) {
		db, worker, id := group(t, subject)
		want := worker.Commit(t, worker.Command(id, "alice", Message("kept")))
		putAside(t, worker, worker.Watermark.GetStream(), &historyv1.DeadLetter{Sequence: 10, Reason: "ten", Payload: []byte("p")}, &historyv1.DeadLetter{Sequence: 9, Reason: "nine"})
		letters := deadLetters(t, db, &historyv1.ListDeadLettersRequest{})
		require.Len(t, letters, 2)
		held := lease(t, db, &historyv1.LeaseRequest{Worker: "w", TtlMs: long}).GetHeld()
		require.Len(t, held, Partitions)
		db.BackToVersion1(t)
		_, err := db.Leases(t.Context())
		require.ErrorIs(t, err, store.ErrUnavailable, "it has not got what is new")

		upgraded, err := db.Reopen(t.Context(), Partitions)
		require.NoError(t, err)
		defer func() { require.NoError(t, upgraded.Close()) }()
		requireEvents(t, want, VerifyLog(t, upgraded, id)[1:])
		requireWatermark(t, upgraded, 3, worker.Watermark)
		require.Equal(t, letters, deadLetters(t, upgraded, &historyv1.ListDeadLettersRequest{}))
		leases, err := upgraded.Leases(t.Context())
		require.NoError(t, err)
		for _, of := range leases.GetLeases() {
			require.Equal(t, "w", of.GetWorker())
			require.Empty(t, of.GetWanted())
		}
		require.NoError(t, upgraded.Move(t.Context(), 2, "w"))
		require.Equal(t, []uint32{2}, lease(t, upgraded, &historyv1.LeaseRequest{Worker: "w", TtlMs: long}).GetPinned())
		before, err := upgraded.Revoke(t.Context(), "alice")
		require.NoError(t, err)
		require.Positive(t, before)
		worker.Store = upgraded
		worker.Commit(t, worker.Command(id, "alice", Message("goes on")))
		VerifyLog(t, upgraded, id)
	})

	t.Run("another number of partitions is refused with what to do", func(t *testing.T) {
		db := subject.New(t)
		_, err := db.Reopen(t.Context(), Partitions/2)
		require.ErrorContains(t, err, "made with 16 partitions, not 8")
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
			"Ping":           func() error { return db.Ping(ctx) },
		}
		for name, call := range calls {
			require.ErrorIs(t, call(), store.ErrUnavailable, name)
		}
	})

	t.Run("a caller that has given up is told so", func(t *testing.T) {
		db, worker, id := group(t, subject)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := db.Append(ctx, worker.Batch(worker.Fork().Apply(t, worker.Command(id, "alice", Message("x")))...))
		require.ErrorIs(t, err, context.Canceled)
		_, err = db.Read(ctx, &historyv1.ReadRequest{ConversationId: id})
		require.ErrorIs(t, err, context.Canceled)
		// The store is as good as before.
		worker.Commit(t, worker.Command(id, "alice", Message("y")))
	})
}
