package sqlite_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/ids"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
	"github.com/runnelhq/runnel/services/history/store/sqlite"
	"github.com/runnelhq/runnel/services/history/store/storetest"
)

// crashEnv makes the test binary act as the process that is killed; its value is the database file.
const crashEnv = "RUNNEL_TEST_CRASH_DATABASE"

// TestKill repeatedly kills a process in the middle of group commits, and checks in its database that every acknowledged
// append exists (I1), at its seq, without a hole (I2), and that no batch exists only in part.
func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.db")
	acked := map[string]uint64{} // conversation → highest acknowledged seq
	for round := range 4 {
		killOneDuringLoad(t, path, round, 300, acked)
		s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path, Gather: time.Millisecond}, storetest.Partitions, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		require.Len(t, acked, storetest.Partitions*(round+1))
		for id, seq := range acked {
			events := storetest.VerifyLog(t, s, id)
			require.GreaterOrEqual(t, len(events), int(seq), "acknowledged events are missing")
			// After the create, events come in batches of crashBatch.
			require.Zero(t, (len(events)-1)%crashBatch, "a batch of %d exists only in part", crashBatch)
		}
		require.NoError(t, s.Close())
	}
}

const crashBatch = 3

// killOneDuringLoad starts a child, waits for acks acknowledgements and kills it at once. The acknowledged seqs go into
// acked.
func killOneDuringLoad(t *testing.T, path string, round, acks int, acked map[string]uint64) {
	t.Helper()
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCrashChild$", "-test.count=1")
	child.Env = append(os.Environ(), crashEnv+"="+path, "RUNNEL_TEST_CRASH_ROUND="+strconv.Itoa(round))
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	lines := bufio.NewScanner(out)
	for n := 0; lines.Scan(); n++ {
		id, seq, found := strings.Cut(lines.Text(), " ")
		require.True(t, found, "the child said: %s", lines.Text())
		number, err := strconv.ParseUint(seq, 10, 64)
		require.NoError(t, err)
		acked[id] = max(acked[id], number)
		if n == acks {
			require.NoError(t, child.Process.Kill())
		}
	}
	require.ErrorContains(t, child.Wait(), "killed")
}

// TestCrashChild appends to all partitions at once, for ever, and writes a line for each acknowledged append.
func TestCrashChild(t *testing.T) {
	path := os.Getenv(crashEnv)
	if path == "" {
		t.Skip("it is run by TestKill, in a process of its own")
	}
	round, err := strconv.Atoi(os.Getenv("RUNNEL_TEST_CRASH_ROUND"))
	require.NoError(t, err)
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path, Gather: time.Millisecond}, storetest.Partitions, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	out := &lineWriter{out: os.Stdout}
	var running sync.WaitGroup
	for p := range uint32(storetest.Partitions) {
		running.Go(func() { appendForEver(t, s, p, round, out) })
	}
	running.Wait()
}

func appendForEver(t *testing.T, s store.Store, partition uint32, round int, out *lineWriter) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	clock := storetest.ClockAt(int64(round)<<40 | int64(partition)<<32)
	worker := storetest.NewWorker(s, ids.Partition(partition), clock)
	watermark, err := s.Watermark(ctx, ids.Partition(partition))
	require.NoError(t, err)
	worker.Watermark = watermark
	id := worker.Commit(t, worker.CreateGroup("alice", "g"))[0].GetConversationId()
	out.line(id, 1)
	for {
		batch := worker.Batch(worker.Apply(t, worker.Command(id, "alice", storetest.Message("1")),
			worker.Command(id, "alice", storetest.Message("2")), worker.Command(id, "alice", storetest.Message("3")))...)
		var duplicates []*historyv1.Duplicate
		if duplicates, err = worker.Append(ctx, batch); err != nil || len(duplicates) > 0 {
			panic(fmt.Sprint("append: ", err, duplicates))
		}
		out.line(id, batch.GetEvents()[crashBatch-1].GetSeq())
	}
}

type lineWriter struct {
	mu  sync.Mutex
	out io.Writer
}

func (w *lineWriter) line(id string, seq uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, _ = fmt.Fprintln(w.out, id, seq)
}
