package attack_test

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/services/standalone"
)

// attack is one thing that a stranger or a hostile user tries.
type attack struct {
	name string
	// tries says what is tried, seen what happens instead. Both are columns of README.md.
	tries, seen string
	bound       bound
	// settings changes the target. May be nil.
	settings func(t *testing.T, cfg *standalone.Config)
	// run attacks. At its height it calls target.during, and it returns when the attack is over.
	run func(t *target)
}

// bound is what an attack may cost beyond what is there without it. 0 means none, except for memory.
type bound struct {
	sockets    int // open at the height of the attack, on any one listener
	goroutines int // left after the attack
	megabytes  int // of heap at the height of the attack; the attacker is in the same process
	calls      int // of the history service
	lines      int // of the log, at level info and above
}

func (b bound) String() string {
	return fmt.Sprintf("%d sockets, %d MiB, %d history calls, %d log lines; %d goroutines stay", b.sockets, b.megabytes, b.calls, b.lines, b.goroutines)
}

// attacks are all of them, in the order of the table.
var attacks = slices.Concat(stages, floods, tokens, frames, encodings, texts, terminals, idAttacks, adding, resumes, crossSite, roles, usurping)

func TestAttacks(t *testing.T) {
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			target := start(t, a)
			a.run(target)
			require.True(t, target.checked, "the attack does not look at what it costs at its height")
			target.after()
		})
	}
}

var update = flag.Bool("update", false, "write README.md")

const readme = "README.md"

// The table of the attacks is that of the tests.
func TestTheTableIsCurrent(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Attacks\n\nEach row is run against a real server by `go test ./attack`. At the height of each attack a client that is connected sends a message, a new\n" +
		"client connects and sends one, and the cost is measured; after it the cost is gone and both clients send again.\n" +
		"Generated from the tests: `go test ./attack -run Table -update`.\n\n| attack | what is tried | what is seen | may cost at most |\n|---|---|---|---|\n")
	names := map[string]bool{}
	for _, a := range attacks {
		require.False(t, names[a.name], a.name)
		names[a.name] = true
		require.NotEmpty(t, a.tries)
		require.NotEmpty(t, a.seen)
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", a.name, a.tries, a.seen, a.bound)
	}
	if *update {
		require.NoError(t, os.WriteFile(readme, []byte(b.String()), 0o600))
	}
	written, err := os.ReadFile(readme)
	require.NoError(t, err)
	require.Equal(t, b.String(), string(written), "go test ./attack -run Table -update")
}
