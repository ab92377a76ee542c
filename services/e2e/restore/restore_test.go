package restore_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/client"
)

// Every row is run with the commands of the pages for operators.
func TestRestore(t *testing.T) {
	t.Parallel()
	both := map[string]mode{"single": single{}, "separate": separate{}}
	for _, row := range []struct {
		name  string
		run   func(t *testing.T, m mode)
		modes map[string]mode
	}{
		{"an older database under newer streams", olderDatabase, both},
		{"lost streams", lostStreams, both},
		{"everything is older", everythingOlder, both},
		{"another machine, from a backup", anotherMachine, both},
		{"another machine, from a copy of all data", anotherMachineCopied, both},
		{"erased content stays erased", erasedStaysErased, both},
		{"a person at a terminal", atATerminal, both},
		{"a person with the chat page", onThePage, map[string]mode{"single": single{}}}, // no other server has the page
	} {
		for name, m := range row.modes {
			t.Run(row.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				row.run(t, m)
			})
		}
	}
}

const kept = 7 // the newest seq in the backup

// group is a group of three: ann and bob are always there, carol is away when it matters. All have received everything.
type group struct {
	*installation

	id              string
	ann, bob, carol *person
	// first is a command in the backup, later are those after it, in their order: ann's three, then bob's.
	first client.Ticket
	later []*client.Ticket
}

// begin has the three write up to the last seq in the backup.
func begin(t *testing.T, m mode) *group {
	t.Helper()
	i := install(t, m)
	g := &group{installation: i, ann: i.person("ann"), bob: i.person("bob"), carol: i.person("carol")}
	ctx, cancel := g.bob.patient()
	defer cancel()
	var err error
	g.id, err = g.bob.CreateGroup(ctx, "group", "ann", "carol")
	require.NoError(t, err)
	g.ann.sees(g.id, 1)
	g.first = *g.ann.say(g.id, "kept 2")
	for _, words := range []string{"kept 3", "kept 4", "kept 5", "kept 6"} {
		g.ann.say(g.id, words)
	}
	require.EqualValues(t, kept, g.bob.committed(g.bob.begin(g.id, "kept 7")))
	return g
}

// goOn has them write what is not in the backup, and returns the log. Then carol leaves.
func (g *group) goOn() (log []client.Event) {
	g.t.Helper()
	for _, words := range []string{"later 8", "later 9", "later 10"} {
		g.later = append(g.later, g.ann.say(g.id, words))
	}
	g.bob.sees(g.id, kept+3)
	g.later = append(g.later, g.bob.say(g.id, "later 11"))
	for _, p := range []*person{g.ann, g.bob, g.carol} {
		p.sees(g.id, kept+4)
	}
	require.NoError(g.t, g.carol.Close())
	return g.bob.log(g.id)
}

// everybodyConverges has everybody write, and compares what they see with the log, which verifies.
func (g *group) everybodyConverges() (log []client.Event) {
	g.t.Helper()
	for _, p := range []*person{g.ann, g.bob, g.carol} {
		p.say(g.id, p.user+" goes on")
	}
	log = g.bob.log(g.id)
	require.Equal(g.t, []string{"ann goes on", "bob goes on", "carol goes on"}, texts(log)[len(log)-4:])
	for _, p := range []*person{g.ann, g.bob, g.carol} {
		p.converges(g.id, log)
	}
	require.Contains(g.t, g.admin("conversations verify "+g.id), "every hash is correct")
	require.EqualValues(g.t, 2, g.ann.again(g.id, g.first.CommandID, "kept 2"), "an old command has its first outcome")
	require.Len(g.t, g.bob.log(g.id), len(log), "and is not stored twice")
	return log
}

// requireSame compares the beginning of a log with what it was before: the same events, not only the same texts.
func requireSame(t *testing.T, before, log []client.Event) {
	t.Helper()
	require.GreaterOrEqual(t, len(log), len(before))
	for n, event := range before {
		require.Equal(t, event.GetHash(), log[n].GetHash(), "seq %d is another event: %v", n+1, log[n].Event)
	}
}

// requireNewEpoch: the epochs rose, and the operator was told.
func (g *group) requireNewEpoch(before []int, printed string) {
	g.t.Helper()
	require.NotEmpty(g.t, before)
	after := g.epochs()
	require.Len(g.t, after, len(before))
	for n := range before {
		require.Greater(g.t, after[n], before[n])
	}
	require.Equal(g.t, len(before), strings.Count(printed, " begins after sequence "), printed)
}

// The streams have what the database lacks: nothing is lost, nothing is undone for good, and every event is the one that it was.
func olderDatabase(t *testing.T, m mode) {
	t.Helper()
	g := begin(t, m)
	g.backup(g.installation)
	epochs := g.epochs()
	before := g.goOn()
	g.down()
	printed := g.restore(g.installation)
	g.requireNewEpoch(epochs, printed)
	g.up()
	g.carol.open()
	log := g.everybodyConverges()
	requireSame(t, before, log)
	require.Len(t, log, kept+4+3)
	for n, ticket := range g.later {
		sender := g.ann
		if n == 3 {
			sender = g.bob
		}
		require.EqualValues(t, kept+1+n, sender.again(g.id, ticket.CommandID, texts(before)[kept-1+n]))
	}
	for _, p := range []*person{g.ann, g.bob, g.carol} { // they may be told while the database catches up
		for _, fork := range p.told() {
			for _, command := range fork.Commands {
				require.LessOrEqual(t, p.committed(command), uint64(len(before)))
			}
		}
	}
}

// The database has everything that was committed: nobody notices, except that commands which were only accepted are sent again.
func lostStreams(t *testing.T, m mode) {
	t.Helper()
	g := begin(t, m)
	before := g.goOn()
	var waiting []*client.Ticket
	if workers := g.suite.Deliveries; len(workers) > 0 { // in one process, what is accepted is committed before it ends
		require.NoError(t, workers[0].Stop())
		waiting = append(waiting, g.ann.begin(g.id, "accepted only"))
		g.ann.until("has nothing accepted", func() bool { return g.ann.accepted[waiting[0].CommandID] })
	}
	g.down()
	waiting = append(waiting, g.ann.begin(g.id, "written meanwhile"))
	g.loseStreams()
	g.up()
	for n, ticket := range waiting {
		require.EqualValues(t, kept+5+n, g.ann.committed(ticket))
	}
	g.carol.open()
	log := g.everybodyConverges()
	requireSame(t, before, log)
	require.Len(t, log, kept+4+len(waiting)+3)
	for _, p := range []*person{g.ann, g.bob, g.carol} {
		require.Empty(t, p.told(), p.user)
	}
}

// A snapshot of all disks is put back: what was sent since is undone, the programs are told, and those that still hold their commands
// send them again.
func everythingOlder(t *testing.T, m mode) {
	t.Helper()
	g := begin(t, m)
	snapshot := filepath.Join(t.TempDir(), "snapshot")
	g.down()
	g.copyTo(snapshot)
	g.up()
	before := g.goOn()
	g.down()
	g.copyBack(snapshot)
	epochs := g.epochs()
	g.requireNewEpoch(epochs, g.putBack(g.installation))
	g.up()
	g.requireUndone(before)
}

// requireUndone: everything after the backup was undone, and came back from the programs that hold it.
func (g *group) requireUndone(before []client.Event) {
	g.t.Helper()
	for p, commands := range map[*person]int{g.ann: 3, g.bob: 1} {
		fork := p.fork()
		require.Equal(g.t, g.id, fork.ConversationID)
		require.EqualValues(g.t, kept+4, fork.From, p.user)
		require.EqualValues(g.t, kept, fork.To, p.user)
		require.Len(g.t, fork.Commands, commands, p.user)
		for _, command := range fork.Commands {
			require.Greater(g.t, p.committed(command), uint64(kept))
		}
	}
	g.carol.open()
	fork := g.carol.fork()
	require.LessOrEqual(g.t, fork.To, uint64(kept))
	require.Empty(g.t, fork.Commands)
	log := g.everybodyConverges()
	for _, p := range []*person{g.ann, g.bob, g.carol} {
		require.Len(g.t, p.told(), 1, "%s is told once", p.user)
	}
	requireSame(g.t, before[:kept], log)
	require.Len(g.t, log, kept+4+3)
	back := texts(log)[kept-1 : kept+3]
	require.ElementsMatch(g.t, texts(before)[kept-1:], back)
	require.Less(g.t, slices.Index(back, "later 8"), slices.Index(back, "later 9"))
	require.Less(g.t, slices.Index(back, "later 9"), slices.Index(back, "later 10"))
}

// A machine is gone with its streams: another one begins with the backup.
func anotherMachine(t *testing.T, m mode) {
	t.Helper()
	g := begin(t, m)
	g.backup(g.installation)
	before := g.goOn()
	g.down()
	other := g.another()
	other.restore(other)
	other.takesOver()
	g.installation = other
	g.requireUndone(before)
}

// A machine is moved with everything that it has: nothing is lost, and nobody notices.
func anotherMachineCopied(t *testing.T, m mode) {
	t.Helper()
	g := begin(t, m)
	before := g.goOn()
	g.down()
	waiting := g.ann.begin(g.id, "written meanwhile")
	other := machine(t, m)
	other.front = g.front
	g.copyTo(other.options.Dir)
	other.boot()
	other.front.Aim(other.target())
	g.installation = other
	require.EqualValues(t, kept+5, g.ann.committed(waiting))
	g.carol.open()
	log := g.everybodyConverges()
	requireSame(t, before, log)
	for _, p := range []*person{g.ann, g.bob, g.carol} {
		require.Empty(t, p.told(), p.user)
	}
}

// A message is erased after the backup. When the backup is restored without the streams that contain the erasure, it is erased again
// before anybody can read it.
func erasedStaysErased(t *testing.T, m mode) {
	t.Helper()
	g := begin(t, m)
	g.backup(g.installation)
	g.admin("erase " + g.id + " --seq 3 --yes")
	g.bob.sees(g.id, kept+1)
	g.down()
	printed := g.restore(g.installation)
	require.Contains(t, printed, "1 events lost their content")
	g.loseStreams()
	g.up()
	log := g.bob.log(g.id)
	require.Len(t, log, kept)
	require.Equal(t, chain.Verified, log[1].Content)
	require.Equal(t, chain.Erased, log[2].Content)
	require.Empty(t, log[2].GetBody().GetMessage().GetText())
	require.Contains(t, g.admin("conversations verify "+g.id), "1 of them erased")
}
