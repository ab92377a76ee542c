package restore_test

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/services/e2e/launch"
)

// terminal is a person with `runnel chat`, or with the chat page.
type terminal struct {
	t       *testing.T
	keys    io.WriteCloser
	process *exec.Cmd
	changed chan struct{}

	mu   sync.Mutex
	text strings.Builder
}

func (i *installation) sit(user, with string) *terminal {
	i.t.Helper()
	command := exec.Command(programs[launch.Standalone], "chat", user, "--with", with, "--url", i.url())
	command.Env = append(os.Environ(), "RUNNEL_AUTH_HMAC_SECRET="+i.options.Secret)
	return i.run(command)
}

func (i *installation) run(command *exec.Cmd) *terminal {
	i.t.Helper()
	m := &terminal{t: i.t, process: command, changed: make(chan struct{}, 1)}
	m.process.Stdout, m.process.Stderr = m, m
	var err error
	m.keys, err = m.process.StdinPipe()
	require.NoError(i.t, err)
	require.NoError(i.t, m.process.Start())
	i.t.Cleanup(func() { _ = m.process.Process.Kill() })
	return m
}

// Write implements io.Writer for the program.
func (m *terminal) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.text.Write(p)
	select {
	case m.changed <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (m *terminal) write(line string) {
	m.t.Helper()
	_, err := io.WriteString(m.keys, line+"\n")
	require.NoError(m.t, err)
}

// shows waits until all texts were printed, in this order.
func (m *terminal) shows(texts ...string) {
	m.t.Helper()
	late := time.After(patience)
	for {
		m.mu.Lock()
		rest := m.text.String()
		m.mu.Unlock()
		all, found := rest, true
		for _, text := range texts {
			if _, rest, found = strings.Cut(rest, text); !found {
				break
			}
		}
		if found {
			return
		}
		select {
		case <-m.changed:
		case <-late:
			require.Fail(m.t, "not shown in this order", "%q in\n%s", texts, all)
		}
	}
}

// leaves ends the program; everything must have been committed.
func (m *terminal) leaves() {
	m.t.Helper()
	m.write("/quit")
	require.NoError(m.t, m.process.Wait())
}

// A person at a terminal reads what was undone, sees their own message come back, and goes on.
func atATerminal(t *testing.T, m mode) {
	t.Helper()
	i := install(t, m)
	bob, ann := i.sit("bob", "ann"), i.sit("ann", "bob")
	bob.shows("you are talking with ann")
	ann.shows("you are talking with bob")
	ann.write("kept")
	bob.shows("#2 ann: kept")
	snapshot := filepath.Join(t.TempDir(), "snapshot")
	i.down()
	i.copyTo(snapshot)
	i.up()
	bob.write("mine")
	bob.shows("✓ committed as 3: mine")
	ann.shows("#3 bob: mine")
	ann.leaves() // her message is undone for good
	i.down()
	i.copyBack(snapshot)
	i.putBack(i)
	i.up()
	bob.shows("the server lost events", "events above #2 are undone", "your own commands among them are sent again: 1", "✓ committed as 3: mine")
	bob.write("and on")
	bob.shows("✓ committed as 4: and on")
	ann = i.sit("ann", "bob")
	ann.shows("#3 bob: mine", "#4 bob: and on")
	ann.leaves()
	bob.leaves()
}
