package messagepath

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A message is committed and synced, stored in the stream, and written to each of the four members; nothing is counted twice or missed
// by a whole stage.
func TestEveryStageOfAMessageIsCounted(t *testing.T) {
	table, err := Measure(t.Context(), Config{Messages: 40, Rounds: 1, Rate: 20}, io.Discard)
	require.NoError(t, err)
	count := func(row Row, column string) float64 { return row.Counts[slices.Index(columns, column)].median() }
	for name, at := range map[string]struct {
		stage  stage
		column string
		least  float64
	}{
		"a frame to each member":                {stageLink, "writes", groupSize},
		"the sender's frame, acknowledgements":  {stageLink, "reads", 1 + groupSize},
		"a reader wakes for each frame":         {stageLink, "woken by network, timers", 1},
		"the command is stored":                 {stageNATSServer, "writes", 1},
		"the command is handed over":            {stageNATSServer, "woken by goroutines", 1},
		"the commit":                            {stageHistory, "writes", 1},
		"the commit is synced":                  {stageHistory, "syncs", 0.5},
		"the worker is woken":                   {stageDelivery, "woken by goroutines", 0.3},
		"the fan-out is woken":                  {stageRooms, "woken by goroutines", 0.3},
		"the session allocates":                 {stageSession, "allocations", 1},
		"the worker allocates":                  {stageDelivery, "allocations", 1},
		"a cursor is moved":                     {stageCursors, "allocations", 0.5},
		"the client of NATS is woken by PubAck": {stageNATSClient, "woken by goroutines", 0.5},
	} {
		require.GreaterOrEqual(t, count(table.Stages[at.stage], at.column), at.least, name)
	}
	require.Less(t, count(table.Total, "reads"), 100.0, "the load generator is not counted")
	require.GreaterOrEqual(t, table.Traffic[1].median(), 4*300.0, "four events")
	require.GreaterOrEqual(t, table.Traffic[2].median(), 500.0, "command and event are written to files")
	require.GreaterOrEqual(t, table.Traffic[4].median(), 1.0, "receipts")

	var out strings.Builder
	table.Print(&out, 3)
	for _, text := range []string{"gateway: rooms, fan-out", "system calls", "allocations", "bytes to clients"} {
		require.Contains(t, out.String(), text)
	}
	page := filepath.Join(t.TempDir(), "README.md")
	require.NoError(t, os.WriteFile(page, []byte("before\n"+beginTable+"old\n"+endTable+"after\n"), 0o600))
	require.NoError(t, table.WriteREADME(page))
	written, err := os.ReadFile(page)
	require.NoError(t, err)
	require.Contains(t, string(written), "| history, SQLite |")
	require.NotContains(t, string(written), "old")
	require.NoError(t, table.WriteJSON(filepath.Join(t.TempDir(), "counts.json")))
}

func TestAStackBelongsToItsInnermostStage(t *testing.T) {
	for _, test := range []struct {
		stack []string
		want  frame
	}{
		{
			[]string{"syscall.Syscall", "syscall.write", "modernc.org/libc.Xwrite", own + "services/history/store/sqlite.(*writer).run", own + "services/delivery.(*Service).Run"},
			frame{stageHistory, "sqlite.(*writer).run"},
		},
		{[]string{"sync.(*Cond).Wait", "github.com/nats-io/nats%2ego.(*Conn).readLoop"}, frame{stageNATSClient, "nats%2ego.(*Conn).readLoop"}},
		{[]string{"google.golang.org/protobuf/proto.Marshal", own + "pkg/chain.Hash", own + "services/gateway/room.(*Hub).take"}, frame{stageRooms, "room.(*Hub).take"}},
		{[]string{"syscall.write", own + "services/e2e/bench/load.(*Client).Submit"}, frame{stageLoad, "load.(*Client).Submit"}},
		{[]string{"runtime.mallocgc", own + "pkg/statuspage.(*Page).sample", "golang.org/x/sync/errgroup.(*Group).Go.func1", "runtime.goexit"}, frame{stageOther, "statuspage.(*Page).sample"}},
		{[]string{"runtime.gcBgMarkWorker"}, frame{stageOther, "unknown"}},
		{nil, frame{stageOther, "unknown"}},
	} {
		require.Equal(t, test.want, place(slices.Values(test.stack)), "%v", test.stack)
	}
}

func TestCountsAreShort(t *testing.T) {
	for want, runs := range map[string][]float64{"": {0}, "0": {0.001}, "1.50": {1, 2}, "2.00": {1, 2, 3}, "123": {123.4}} {
		require.Equal(t, want, Count{Runs: runs}.short())
	}
	require.Equal(t, "2.00 (1.00–3.00)", Count{Runs: []float64{3, 1, 2}}.long())
}

func TestNonsenseIsRefused(t *testing.T) {
	_, err := Measure(t.Context(), Config{Messages: 1, Rounds: 0, Rate: 1}, io.Discard)
	require.ErrorContains(t, err, "--rounds")
}
