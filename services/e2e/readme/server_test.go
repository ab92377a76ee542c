package readme

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// patience bounds waits that only a defect makes long.
const patience = 2 * time.Minute

// server is `runnel` without any authentication setting, as `make run` starts it, on free ports.
type server struct {
	dir, clients, code, admin, rpc string
}

// startServer starts it and reads its banner.
func startServer(t *testing.T, programs string) *server {
	t.Helper()
	s := &server{dir: filepath.Join(t.TempDir(), "data")}
	command := exec.CommandContext(context.WithoutCancel(t.Context()), filepath.Join(programs, "runnel"), "--data-dir", s.dir,
		"--gateway.listen", "127.0.0.1:0", "--rpc.listen", "127.0.0.1:0", "--admin.listen", "127.0.0.1:0")
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	require.NoError(t, err)
	command.Stderr = log // a file, which the process writes by itself
	logged := func() string {
		text, _ := os.ReadFile(log.Name())
		return string(text)
	}
	out, err := command.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, command.Start())
	require.NoError(t, log.Close())
	rest := make(chan struct{})
	t.Cleanup(func() {
		_ = command.Process.Signal(syscall.SIGTERM)
		<-rest
		require.NoError(t, command.Wait(), logged())
	})
	lines := bufio.NewScanner(out)
	var banner strings.Builder
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "Ctrl-C") {
		banner.WriteString(lines.Text() + "\n")
	}
	go func() {
		defer close(rest)
		for lines.Scan() {
		}
	}()
	find := func(expression string) []string {
		match := regexp.MustCompile(expression).FindStringSubmatch(banner.String())
		require.NotNil(t, match, "the banner has no %s:\n%s%s", expression, banner.String(), logged())
		return match
	}
	page := find(`Open in a browser +http://(\S+)/#code=(\w+)`)
	s.clients, s.code = page[1], page[2]
	s.admin = find(`Status page +http://(\S+)/`)[1]
	s.rpc = find(`--address (\S+) status`)[1]
	return s
}

// commands is the script that says which commands of a page are run against the server: those that end by themselves, change nothing
// that other blocks rely on, and do not name another server. The variables stand for the default ports and the default directory.
func (s *server) commands() string {
	return fmt.Sprintf(`
runs() {
	local words=" $* "
	case $words in *" --url "* | *" --data-dir "* | *" --tls."* | *" --print-config "*) return 1 ;; esac
	[[ -z ${RUNNEL_AUTH_HMAC_SECRET_FILE:-}${RUNNEL_TLS_CERT_FILE:-} ]] || return 1
	case $words in
	" runnel token "*) export RUNNEL_DATA_DIR=%[1]q ;;
	*" --help "* | *" --version "* | " runnel-history backup begin "*" sqlite:runnel-data/history.db "*) ;;
	" runnel chat "*) export RUNNEL_DATA_DIR=%[1]q RUNNEL_URL=ws://%[2]s/v1/ws ;;
	" runnel verify "*) export RUNNEL_HISTORY_ADDRESS=%[3]s ;;
	" runnel admin status "* | " runnel admin level "* | " runnel admin "*" list "* | " runnel admin users "* | " runnel admin backup mark "*) export RUNNEL_ADDRESS=%[3]s ;;
	*) return 1 ;;
	esac
}
`, s.dir, s.clients, s.rpc)
}

// ended waits with a deadline.
func ended(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}
