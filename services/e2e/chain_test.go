package e2e_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/pkg/telemetry"
	"github.com/runnelhq/runnel/services/history"
)

// ledger is one conversation in a real store, and direct access to the database file.
type ledger struct {
	history historyv1.HistoryServiceClient
	file    string
	id      string
}

const ledgerLength = 9

func newLedger(t *testing.T) *ledger {
	t.Helper()
	l := &ledger{file: filepath.Join(t.TempDir(), "history.db")}
	log := slog.New(slog.DiscardHandler)
	cfg := history.Config{Database: "sqlite:" + l.file}
	store, err := history.Open(t.Context(), cfg, 1, log)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	inproc := rpc.NewInproc(telemetry.Discard())
	historyv1.RegisterHistoryServiceServer(inproc, history.New(cfg, store, log, prometheus.NewRegistry()))
	l.history = historyv1.NewHistoryServiceClient(inproc)

	w := newWorker(t)
	request := &historyv1.AppendRequest{Expected: &historyv1.Watermark{}}
	w.apply("ann", group("bob"), 1000, request)
	for n := 1; n < ledgerLength; n++ {
		w.apply("ann", text(fmt.Sprintf("entry %d", n)), 1000, request)
	}
	l.id = w.id
	answer, err := l.history.Append(t.Context(), request)
	require.NoError(t, err)
	require.Empty(t, answer.GetDuplicates())
	return l
}

// tamper changes the file as somebody with access to it could.
func (l *ledger) tamper(t *testing.T, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+l.file+"?_pragma=busy_timeout(5000)")
	require.NoError(t, err)
	defer db.Close()
	for _, statement := range statements {
		result, err := db.ExecContext(t.Context(), statement)
		require.NoError(t, err)
		changed, err := result.RowsAffected()
		require.NoError(t, err)
		require.NotZero(t, changed, statement)
	}
}

// verify reads the whole log in small pages and checks it against itself and the head.
func (l *ledger) verify(ctx context.Context) error {
	v := chain.From(0, chain.Zero)
	for {
		page, err := l.history.Read(ctx, &historyv1.ReadRequest{ConversationId: l.id, After: uint64(v.Seq()), Limit: 4})
		if gap, missing := rpc.Detail[*conversationv1.Range](err); missing {
			return &chain.Broken{ConversationID: ids.Conversation(l.id), Seq: ids.Seq(gap.GetLast() + 1), Reason: "what was before it is missing"}
		}
		if err != nil {
			return err
		}
		for _, event := range page.GetEvents() {
			if _, err := v.Next(event); err != nil {
				return err
			}
		}
		if !page.GetMore() {
			break
		}
	}
	heads, err := l.history.Heads(ctx, &historyv1.HeadsRequest{ConversationIds: []string{l.id}})
	if err != nil {
		return err
	}
	head := heads.GetHeads()[0]
	if v.Seq() != ids.Seq(head.GetHead()) || string(v.Hash()) != string(head.GetHeadHash()) {
		return &chain.Broken{ConversationID: ids.Conversation(l.id), Seq: v.Seq() + 1, Reason: "the head is another event"}
	}
	return nil
}

// Promise 6: whatever is changed in the database, verification names the seq.
func TestTamperingWithTheDatabaseIsNamedBySeq(t *testing.T) {
	for name, test := range map[string]struct {
		seq        uint64
		statements []string
	}{
		// The text stands at the end of the body.
		"a byte of a body":            {5, []string{`UPDATE events SET body = CAST(substr(body, 1, length(body) - 1) || 'X' AS BLOB) WHERE seq = 5`}},
		"a body that is cut":          {5, []string{`UPDATE events SET body = substr(body, 1, 3) WHERE seq = 5`}},
		"a byte of a salt":            {5, []string{`UPDATE events SET salt = x'01000000000000000000000000000000' WHERE seq = 5`}},
		"a sender":                    {5, []string{`UPDATE events SET sender = 'bob' WHERE seq = 5`}},
		"a time":                      {5, []string{`UPDATE events SET time_ms = time_ms + 1 WHERE seq = 5`}},
		"a command id":                {5, []string{`UPDATE events SET command_id = x'0192f3c00000700080000000000000ff' WHERE seq = 5`}},
		"a hash":                      {5, []string{`UPDATE events SET hash = zeroblob(32) WHERE seq = 5`}},
		"a whole event":               {6, []string{`UPDATE events SET (body, salt, hash) = (SELECT body, salt, hash FROM events WHERE seq = 4) WHERE seq = 6`}},
		"an event is missing":         {6, []string{`DELETE FROM events WHERE seq = 5`}}, // the next event does not follow it
		"the first event is missing":  {2, []string{`DELETE FROM events WHERE seq = 1`}},
		"the newest event is missing": {9, []string{`DELETE FROM events WHERE seq = 9`}},
		"events are renumbered over a missing one": {5, []string{
			`DELETE FROM events WHERE seq = 5`, `UPDATE events SET seq = -seq WHERE seq > 5`, `UPDATE events SET seq = -seq - 1 WHERE seq < 0`,
		}},
		"two events are swapped": {4, []string{
			`UPDATE events SET seq = 100 WHERE seq = 4`, `UPDATE events SET seq = 4 WHERE seq = 7`, `UPDATE events SET seq = 7 WHERE seq = 100`,
		}},
		"the head": {10, []string{`UPDATE conversations SET head_hash = zeroblob(32)`}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLedger(t)
			require.NoError(t, l.verify(t.Context()))
			l.tamper(t, test.statements...)
			var broken *chain.Broken
			err := l.verify(t.Context())
			require.ErrorAs(t, err, &broken)
			require.Equal(t, ids.Seq(test.seq), broken.Seq, "%v", broken)
			require.Equal(t, ids.Conversation(l.id), broken.ConversationID)
		})
	}
}

// An erased event is reported as erased, and all events around it still verify.
func TestAnErasedEventStillVerifies(t *testing.T) {
	l := newLedger(t)
	page, err := l.history.Read(t.Context(), &historyv1.ReadRequest{ConversationId: l.id, After: 4, Limit: 1})
	require.NoError(t, err)
	event := page.GetEvents()[0]
	commitment := chain.Commitment(event.GetSalt(), event.GetBody())
	l.tamper(t, fmt.Sprintf(`UPDATE events SET body = NULL, salt = NULL, commitment = x'%x' WHERE seq = 5`, commitment))
	require.NoError(t, l.verify(t.Context()))
}
