package restore_test

import (
	"context"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/postgrestest"
	"github.com/runnelhq/runnel/services/e2e/launch"
	"github.com/runnelhq/runnel/services/e2e/proxy"
)

// programs are built once, for all tests.
var programs launch.Binaries

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "runnel-restore-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	programs, err = launch.Build(context.Background(), filepath.Join(dir, "bin"), "",
		launch.Standalone, launch.Gateway, launch.Delivery, launch.History, launch.NATSServer)
	if err != nil {
		panic(err)
	}
	return m.Run()
}

// mode is one of the two ways to run Runnel, and what an operator does in it. All methods but start work on a machine whose services
// do not run.
type mode interface {
	// start starts everything on a machine.
	start(ctx context.Context, options launch.Options) (*launch.Suite, error)
	// settle sets up a machine's desk: where the commands find the data.
	settle(i *installation)
	// services are those that are stopped for a restore, in the order in which they are started.
	services(s *launch.Suite) []launch.Part
	// operator is the address for runnel admin.
	operator(s *launch.Suite) string
	// backup makes a backup while the services run.
	backup(i *installation)
	// restore puts the backup in place, and prepares it; putBack only prepares data that was put back.
	restore(i *installation) string
	putBack(i *installation) string
	// empty sets up the database of a machine on which a backup is restored, before anything is started there.
	empty(ctx context.Context, i *installation)
	// files says where the data is on a machine.
	files(dir string) files
}

// files are the data of a machine.
type files struct {
	// data are the directories that hold everything but the ledger of separate services; streams is the one of NATS.
	data    []string
	streams string
	// ledger is the erase ledger.
	ledger string
}

// installation is Runnel on one machine, with its operator. Clients reach it at the same address after it has moved.
type installation struct {
	mode

	t       *testing.T
	options launch.Options
	suite   *launch.Suite
	front   *proxy.Proxy
	desk    *desk
}

// install starts Runnel on a machine.
func install(t *testing.T, m mode) *installation {
	t.Helper()
	i := machine(t, m)
	i.boot()
	var err error
	i.front, err = proxy.Listen(i.target())
	require.NoError(t, err)
	t.Cleanup(i.front.Close)
	return i
}

// machine has Runnel's programs and no data.
func machine(t *testing.T, m mode) *installation {
	t.Helper()
	i := &installation{mode: m, t: t, options: launch.Options{
		Dir: filepath.Join(t.TempDir(), "machine"), Binaries: programs, Store: launch.PostgreSQL, Gateways: 1, Deliveries: 1,
		Secret: strings.Repeat("s", 64), Flags: map[string][]string{},
	}}
	for _, program := range []string{launch.Standalone, launch.Gateway} { // no client connects elsewhere
		i.options.Flags[program] = []string{"--gateway.drain=100ms"}
	}
	i.options.Flags[launch.History] = []string{"--history.erase-ledger=" + m.files(i.options.Dir).ledger}
	i.takeDesk()
	return i
}

// another is a machine on which the operator has the files from the desk of this one. Nothing runs on it yet.
func (i *installation) another() *installation {
	i.t.Helper()
	other := machine(i.t, i.mode)
	other.front = i.front
	other.desk.run("find '" + i.desk.dir + "' -maxdepth 1 -type f -exec cp {} . \\;")
	ctx, cancel := context.WithTimeout(i.t.Context(), patience)
	defer cancel()
	other.empty(ctx, other)
	other.desk.run("cp '" + i.own().ledger + "' '" + other.own().ledger + "'")
	return other
}

// takesOver starts everything on another machine, and leads the clients there.
func (i *installation) takesOver() {
	i.t.Helper()
	if i.suite != nil && i.suite.Postgres != nil { // the suite starts it
		require.NoError(i.t, i.suite.Postgres.Stop())
	}
	i.boot()
	i.front.Aim(i.target())
}

// own are the files of this machine.
func (i *installation) own() files { return i.files(i.options.Dir) }

func (i *installation) takeDesk() {
	i.t.Helper()
	i.desk = &desk{t: i.t, dir: filepath.Join(filepath.Dir(i.options.Dir), "desk")}
	require.NoError(i.t, os.MkdirAll(i.desk.dir, 0o755))
	require.NoError(i.t, os.Symlink(filepath.Dir(programs[launch.Standalone]), filepath.Join(i.desk.dir, "bin")))
	i.settle(i)
}

func (i *installation) boot() {
	i.t.Helper()
	ctx, cancel := context.WithTimeout(i.t.Context(), patience)
	defer cancel()
	suite, err := i.start(ctx, i.options)
	if errors.Is(err, postgrestest.ErrNotInstalled) && os.Getenv("CI") == "" {
		i.t.Skip(err)
	}
	require.NoError(i.t, err)
	i.suite = suite
	i.t.Cleanup(suite.Kill)
}

// target is where the clients' connections go.
func (i *installation) target() string {
	at, err := url.Parse(i.suite.URLs[0])
	require.NoError(i.t, err)
	return at.Host
}

func (i *installation) url() string { return "ws://" + i.front.Addr() + "/v1/ws" }

func (i *installation) token(user string) (string, error) { return i.suite.Token(user) }

// down stops the services, the gateways first.
func (i *installation) down() {
	i.t.Helper()
	parts := i.services(i.suite)
	for n := range parts {
		require.NoError(i.t, parts[len(parts)-1-n].Stop())
	}
}

func (i *installation) up() {
	i.t.Helper()
	ctx, cancel := context.WithTimeout(i.t.Context(), patience)
	defer cancel()
	for _, part := range i.services(i.suite) {
		require.NoError(i.t, part.Restart(ctx))
	}
}

// loseStreams removes all data of NATS.
func (i *installation) loseStreams() {
	i.t.Helper()
	require.NoError(i.t, os.RemoveAll(i.own().streams))
}

// copyTo copies all data of the stopped machine to another directory, as a snapshot of its disks does.
func (i *installation) copyTo(dir string) {
	i.t.Helper()
	i.withoutDatabase(func() {
		require.NoError(i.t, os.MkdirAll(dir, 0o755))
		for _, data := range i.own().data {
			i.desk.run("cp -a " + data + " " + dir)
		}
	})
}

// copyBack replaces all data of the stopped machine.
func (i *installation) copyBack(dir string) {
	i.t.Helper()
	i.withoutDatabase(func() {
		for _, data := range i.own().data {
			i.desk.run("rm -rf " + data + " && cp -a " + filepath.Join(dir, filepath.Base(data)) + " " + data)
		}
	})
}

func (i *installation) withoutDatabase(do func()) {
	i.t.Helper()
	if i.suite.Postgres == nil {
		do()
		return
	}
	require.NoError(i.t, i.suite.Postgres.Stop())
	do()
	ctx, cancel := context.WithTimeout(i.t.Context(), patience)
	defer cancel()
	require.NoError(i.t, i.suite.Postgres.Restart(ctx))
}

// admin runs a command of runnel admin.
func (i *installation) admin(args string) string {
	i.t.Helper()
	return i.desk.run("bin/runnel admin --address " + i.operator(i.suite) + " " + args)
}

// epochs are those of the partitions that were ever committed to.
func (i *installation) epochs() (all []int) {
	i.t.Helper()
	marks := i.desk.run("bin/runnel-history backup begin --history.database '" + i.suite.Database + "'")
	for _, match := range regexp.MustCompile(`"epoch": *"(\d+)"`).FindAllStringSubmatch(marks, -1) {
		epoch, err := strconv.Atoi(match[1])
		require.NoError(i.t, err)
		all = append(all, epoch)
	}
	return all
}

// single is runnel in one process. It follows README.md.
type single struct{}

func (single) start(ctx context.Context, options launch.Options) (*launch.Suite, error) {
	return launch.StartStandalone(ctx, options)
}

func (s single) settle(i *installation) {
	require.NoError(i.t, os.Symlink(s.files(i.options.Dir).data[0], filepath.Join(i.desk.dir, "runnel-data")))
}

func (s single) empty(_ context.Context, i *installation) {
	require.NoError(i.t, os.MkdirAll(s.files(i.options.Dir).data[0], 0o700))
}

func (single) services(s *launch.Suite) []launch.Part { return []launch.Part{s.Standalone} }
func (single) operator(s *launch.Suite) string        { return s.Standalone.Flag("rpc.listen") }

func (s single) backup(i *installation)         { i.desk.run(s.commands(i.t)[0]) }
func (s single) restore(i *installation) string { return i.desk.run(s.commands(i.t)[1]) }
func (single) putBack(i *installation) string   { return i.desk.run("bin/runnel restore") }

func (single) files(dir string) files {
	data := filepath.Join(dir, "standalone")
	return files{data: []string{data}, streams: filepath.Join(data, "nats"), ledger: filepath.Join(data, "erased.jsonl")}
}

func (single) commands(t *testing.T) []string {
	t.Helper()
	all := blocks(t, "README.md", "Backup and restore")
	require.Len(t, all, 1)
	lines := strings.Split(strings.TrimSpace(all[0]), "\n")
	require.Len(t, lines, 2, "one makes the backup, one restores it")
	return lines
}

// separate is all services as processes, with NATS and PostgreSQL. It follows deploy/README.md.
type separate struct{}

func (separate) start(ctx context.Context, options launch.Options) (*launch.Suite, error) {
	return launch.Start(ctx, options)
}

func (s separate) settle(i *installation) {
	i.desk.environment = []string{"RUNNEL_HISTORY_ERASE_LEDGER=" + i.own().ledger}
}

func (s separate) empty(ctx context.Context, i *installation) {
	dir := s.files(i.options.Dir).data[0]
	require.NoError(i.t, os.MkdirAll(dir, 0o755))
	server, err := launch.RunPostgres(ctx, dir)
	require.NoError(i.t, err)
	i.t.Cleanup(server.Kill)
	i.suite = &launch.Suite{Postgres: server, Database: server.URL()}
}

func (separate) services(s *launch.Suite) []launch.Part {
	return []launch.Part{s.NATS[0], s.Histories[0], s.Deliveries[0], s.Gateways[0]}
}

func (separate) operator(s *launch.Suite) string { return s.Deliveries[0].Flag("rpc.listen") }

// files: the ledger is apart from the database.
func (separate) files(dir string) files {
	streams := filepath.Join(dir, "nats-0")
	return files{
		data: []string{filepath.Join(dir, "postgres"), streams}, streams: streams,
		ledger: filepath.Join(filepath.Dir(dir), "erased.jsonl"),
	}
}

var (
	// location is the line of a block that names the database, transfer the one that restores it.
	location = regexp.MustCompile(`(?m)^export RUNNEL_HISTORY_DATABASE=.*$`)
	transfer = regexp.MustCompile(`(?m)^pg_restore .*$`)
)

// commands returns the blocks of the page for the database of this machine: the backup, then the restore.
func (separate) commands(i *installation) []string {
	i.t.Helper()
	all := blocks(i.t, "deploy/README.md", "Back up and restore")
	require.Len(i.t, all, 2)
	for n, block := range all {
		require.Regexp(i.t, location, block)
		all[n] = location.ReplaceAllLiteralString(block, "export RUNNEL_HISTORY_DATABASE='"+i.suite.Database+"'")
	}
	require.Regexp(i.t, transfer, all[1])
	return all
}

func (s separate) backup(i *installation)         { i.desk.run(s.commands(i)[0]) }
func (s separate) restore(i *installation) string { return i.desk.run(s.commands(i)[1]) }

func (s separate) putBack(i *installation) string {
	return i.desk.run(transfer.ReplaceAllString(s.commands(i)[1], ""))
}
