package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/settings"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history"
	"github.com/runnelhq/runnel/services/history/ledger"
	"github.com/runnelhq/runnel/services/history/store"
	"github.com/runnelhq/runnel/services/history/store/storetest"
)

// installation is a database file with an erase ledger, used by the service and by commands.
type installation struct {
	t      *testing.T
	path   string
	cfg    history.Config
	ledger string
}

func install(t *testing.T) *installation {
	t.Helper()
	i := &installation{t: t, path: filepath.Join(t.TempDir(), "history.db"), ledger: filepath.Join(t.TempDir(), "erased.jsonl")}
	i.cfg = history.Config{Database: "sqlite:" + i.path, EraseLedger: i.ledger}
	return i
}

// serve calls a function with the service's store and server.
func (i *installation) serve(run func(s history.Store, server *history.Server)) {
	i.t.Helper()
	s, err := history.Open(i.t.Context(), i.cfg, storetest.Partitions, slog.New(slog.DiscardHandler))
	require.NoError(i.t, err)
	server := history.New(i.cfg, s, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	run(s, server)
	require.NoError(i.t, server.Close())
	require.NoError(i.t, s.Close())
}

// command runs a command as at a terminal.
func (i *installation) command(args ...string) (string, error) {
	i.t.Helper()
	var c cli
	var out bytes.Buffer
	parser, err := settings.New("runnel-history", "", &c, kong.Writers(&out, &out), kong.Exit(func(int) {}))
	require.NoError(i.t, err)
	parsed, err := parser.Parse(append(args, "--history.database="+i.cfg.Database, "--history.erase-ledger="+i.ledger))
	if err != nil {
		return "", err
	}
	err = run(i.t.Context(), &c, parsed, &out)
	return out.String(), err
}

func (i *installation) ok(args ...string) string {
	i.t.Helper()
	out, err := i.command(args...)
	require.NoError(i.t, err)
	return out
}

func (i *installation) copyTo(name string) string {
	i.t.Helper()
	content, err := os.ReadFile(i.path)
	require.NoError(i.t, err)
	copied := filepath.Join(i.t.TempDir(), name)
	require.NoError(i.t, os.WriteFile(copied, content, 0o600))
	return copied
}

// through commits commands through the service, which writes the ledger, as a worker of the conversation's partition does.
func through(t *testing.T, server *history.Server, worker *storetest.Worker, events ...*conversationv1.Event) {
	t.Helper()
	batch := worker.Batch(events...)
	response, err := server.Append(t.Context(), batch)
	require.NoError(t, err)
	require.Empty(t, response.GetDuplicates())
	worker.Watermark = batch.GetNext()
	worker.Watermark.Epoch = response.GetEpoch()
}

func TestARestoredDatabaseIsErasedFromAgainAndItsReadersAreTold(t *testing.T) {
	i := install(t)
	worker := storetest.NewWorker(nil, 0, storetest.ClockAt(0))
	create := worker.CreateGroup("alice", "g", "bob")
	id := ids.Conversation(create.GetConversationId())
	worker.Partition = conversation.Partition(id, storetest.Partitions)
	var backup string
	i.serve(func(s history.Store, server *history.Server) {
		worker.Store = s
		through(t, server, worker, worker.Apply(t, create)...)
		through(t, server, worker, worker.Apply(t, worker.Command(string(id), "alice", storetest.Message("2")), worker.Command(string(id), "bob", storetest.Message("3")),
			worker.Command(string(id), "alice", storetest.Message("4")))...)
	})
	backup = i.copyTo("backup.db")
	var ahead *historyv1.Position
	i.serve(func(s history.Store, server *history.Server) {
		worker.Store = s
		through(t, server, worker, worker.Apply(t, worker.Command(string(id), "alice", storetest.Delete(2)))...)
		through(t, server, worker, worker.Apply(t, worker.Command(string(id), string(conversation.ServerUser), storetest.Erase(&conversationv1.Erase{Sender: "bob"})))...)
		ahead = &historyv1.Position{Epoch: worker.Watermark.GetEpoch(), Sequence: worker.Watermark.GetSequence()}
	})
	require.NoError(t, os.Rename(backup, i.path))

	out := i.ok("restored")
	require.Contains(t, out, "2 events lost their content")
	i.serve(func(s history.Store, _ *history.Server) {
		events := storetest.VerifyLog(t, s, string(id))
		require.Len(t, events, 4)
		var gone []uint64
		for _, event := range events {
			if len(event.GetBody()) == 0 {
				gone = append(gone, event.GetSeq())
			}
		}
		require.Equal(t, []uint64{2, 3}, gone)
		_, err := s.ReadFeed(t.Context(), worker.Partition, ahead, 10)
		var fork *store.ForkError
		require.ErrorAs(t, err, &fork)
		require.Equal(t, ahead.GetEpoch(), fork.GetLast().GetEpoch())

		// The log continues differently: other events have the seqs in the ledger.
		watermark, err := s.Watermark(t.Context(), worker.Partition)
		require.NoError(t, err)
		require.Greater(t, watermark.GetEpoch(), ahead.GetEpoch())
	})
	entries, damaged, err := ledger.Read(i.ledger)
	require.NoError(t, err)
	require.Zero(t, damaged)
	require.NotEmpty(t, entries)
	again := i.ok("restored")
	require.Contains(t, again, "0 events lost their content", "running it twice does no harm")
}

func TestALossIsAccepted(t *testing.T) {
	i := install(t)
	i.serve(func(s history.Store, _ *history.Server) {
		worker := storetest.NewWorker(s, 3, storetest.ClockAt(0))
		worker.Commit(t, worker.CreateGroup("alice", "g"))
	})
	out := i.ok("accept-loss", "3", "--through=9")
	require.Contains(t, out, "partition 3: sequences 2 to 9 of stream 1790000000000000000 are recorded as lost")
	_, err := i.command("accept-loss", "3", "--through=9")
	require.ErrorContains(t, err, "must be above")
	_, err = i.command("accept-loss", "99", "--through=9")
	require.ErrorContains(t, err, "partitions 0 to 15")
	_, err = i.command("accept-loss", "3")
	require.ErrorContains(t, err, "--through")
}

func TestViewsAreRebuilt(t *testing.T) {
	i := install(t)
	i.serve(func(s history.Store, _ *history.Server) {
		worker := storetest.NewWorker(s, 3, storetest.ClockAt(0))
		id := worker.Commit(t, worker.CreateGroup("alice", "g"))[0].GetConversationId()
		worker.Commit(t, worker.Command(id, "alice", storetest.Message("2")), worker.Command(id, "alice", storetest.Edit(2, "3")), worker.Command(id, "alice", storetest.React(2, "x", false)))
	})
	out := i.ok("rebuild", "--verbose")
	require.Contains(t, out, ": seq 4\n")
	require.Contains(t, out, "1 conversations with 4 events: 1 view rows and 1 reactions")
}

func TestABackupIsMarkedWhereItBegan(t *testing.T) {
	i := install(t)
	var worker *storetest.Worker
	i.serve(func(s history.Store, _ *history.Server) {
		worker = storetest.NewWorker(s, 3, storetest.ClockAt(0))
		worker.Commit(t, worker.CreateGroup("alice", "g"))
	})
	marks := filepath.Join(t.TempDir(), "marks.json")
	require.NoError(t, os.WriteFile(marks, []byte(i.ok("backup", "begin")), 0o600))
	i.serve(func(s history.Store, _ *history.Server) {
		worker.Store = s
		worker.Commit(t, worker.CreateGroup("alice", "after the backup was begun"))
	})
	require.True(t, strings.HasPrefix(i.ok("backup", "mark", marks), "partition 3: sequence 1 of stream 1790000000000000000 in epoch "))
	require.Contains(t, i.ok("backup", "mark"), "partition 3: sequence 2 of")
	require.NoError(t, os.WriteFile(marks, []byte("?"), 0o600))
	_, err := i.command("backup", "mark", marks)
	require.ErrorContains(t, err, "is not output of backup begin")
}

func TestTheServiceIsWhatRunsWithoutACommand(t *testing.T) {
	var c cli
	parser, err := settings.New("runnel-history", "", &c)
	require.NoError(t, err)
	parsed, err := parser.Parse([]string{"--rpc.listen=127.0.0.1:1", "--nats.partitions=4"})
	require.NoError(t, err)
	require.Equal(t, "serve", parsed.Command())
	require.Equal(t, "127.0.0.1:1", c.Serve.Process.RPC.Listen)
	require.Equal(t, "127.0.0.1:9090", c.Serve.Process.Admin.Listen)
	require.Equal(t, 4, c.NATS.Partitions)
}
