package restore_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// browse opens the chat page in something like a browser.
func (i *installation) browse(user string) *terminal {
	i.t.Helper()
	node, err := exec.LookPath("node")
	if err != nil && os.Getenv("CI") == "" {
		i.t.Skip("node is not installed")
	}
	require.NoError(i.t, err)
	token, err := i.token(user)
	require.NoError(i.t, err)
	return i.run(exec.Command(node, "--experimental-websocket", "--no-warnings", filepath.Join("testdata", "browser.js"),
		"../../standalone/web/chat.js", "http://"+i.front.Addr(), user, token))
}

// The chat page shows that events are undone, and sends the user's own messages again.
func onThePage(t *testing.T, m mode) {
	t.Helper()
	i := install(t, m)
	ann := i.person("ann")
	ctx, cancel := ann.patient()
	defer cancel()
	id, err := ann.OpenDirect(ctx, "bob")
	require.NoError(t, err)
	ann.say(id, "kept")
	bob := i.browse("bob")
	bob.shows("kept")
	bob.write("mine, kept")
	ann.sees(id, 3)
	snapshot := filepath.Join(t.TempDir(), "snapshot")
	i.down()
	i.copyTo(snapshot)
	i.up()
	bob.write("mine, undone")
	ann.sees(id, 4)
	ann.say(id, "hers, undone")
	bob.shows("hers, undone")
	require.NoError(t, ann.Close()) // her message is undone for good
	i.down()
	i.copyBack(snapshot)
	i.putBack(i)
	i.up()
	bob.shows("The server lost events: 2 of this conversation are undone, and your own messages among them are sent again: 1")
	again := i.person("ann") // with nothing of what ann's program kept
	again.sees(id, 4)
	log := again.log(id)
	require.Equal(t, []string{"kept", "mine, kept", "mine, undone"}, texts(log))
	bob.write("and on")
	again.sees(id, 5)
	require.Len(t, again.log(id), 5)
}
