package readme

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// invocation records a program that a block of shell commands started.
type invocation struct {
	program     string
	args        []string
	environment map[string]string // RUNNEL_… variables
}

func (i invocation) String() string { return i.program + " " + strings.Join(i.args, " ") }

// outside are programs that blocks may start but that are never run: their invocations are only recorded.
var outside = []string{
	"make", "go", "git", "docker", "kubectl", "helm", "skopeo", "curl", "nats", "nats-server", "psql", "pg_dump", "pg_restore",
	"createdb", "createuser", "systemctl", "sudo", "install", "sqlite3",
}

// own are Runnel's programs, which blocks start as bin/NAME.
var own = []string{"runnel", "runnel-gateway", "runnel-delivery", "runnel-history"}

// recorder is installed instead of every program. It appends a line to a file: program, variables and arguments, each
// followed by NUL, in base64. If the program may be run, the recorder runs it.
const recorder = `#!/usr/bin/env bash
set -euo pipefail
name=$(basename "$0")
record() {
	printf '%s\0' "$name"
	for variable in ${!RUNNEL_@}; do printf '%s=%s\0' "$variable" "${!variable}"; done
	printf -- '--\0'
	for arg; do printf '%s\0' "$arg"; done
}
line=$(record "$@" | base64 -w0)
printf '%s\n' "$line" >>"$README_RECORDS"
[[ -n ${README_SERVER:-} ]] || exit 0
. "$README_SERVER"
runs "$name" "$@" || exit 0
exec "$README_PROGRAMS/$name" "$@"
`

// shell runs blocks of shell commands in a directory of its own.
type shell struct {
	dir string
	// programs is the directory of the real programs. server is a bash script; its function runs decides which
	// invocations are really run, and with which variables. Without a server none is run.
	programs, server string
}

// newShell makes a directory with recorders.
func newShell(dir string) (*shell, error) {
	places := []string{"deploy/secrets.sh", "deploy/kubernetes-secrets.sh"}
	for _, name := range own {
		places = append(places, "bin/"+name, "path/"+name)
	}
	for _, name := range outside {
		places = append(places, "path/"+name)
	}
	for _, place := range places {
		file := filepath.Join(dir, place)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return nil, err
		}
		if err := os.WriteFile(file, []byte(recorder), 0o700); err != nil {
			return nil, err
		}
	}
	return &shell{dir: dir}, nil
}

// run runs a block and returns the programs that it started.
func (s *shell) run(ctx context.Context, f fence) ([]invocation, error) {
	records := filepath.Join(s.dir, "records")
	if err := os.WriteFile(records, nil, 0o600); err != nil {
		return nil, err
	}
	command := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", f.text+"\nwait")
	command.Dir = s.dir
	command.Env = []string{
		"PATH=" + filepath.Join(s.dir, "path") + ":/usr/local/bin:/usr/bin:/bin", "HOME=" + s.dir,
		"README_RECORDS=" + records, "README_PROGRAMS=" + s.programs, "README_SERVER=" + s.server,
	}
	if output, err := command.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("line %d: %w\n%s%s", f.line, err, f.text, output)
	}
	text, err := os.ReadFile(records)
	if err != nil {
		return nil, err
	}
	var all []invocation
	for line := range strings.Lines(string(text)) {
		record, err := base64.StdEncoding.DecodeString(strings.TrimSpace(line))
		if err != nil {
			return nil, err
		}
		words := strings.Split(strings.TrimSuffix(string(record), "\x00"), "\x00")
		end := slices.Index(words, "--")
		i := invocation{program: words[0], args: words[end+1:], environment: map[string]string{}}
		for _, variable := range words[1:end] {
			name, value, _ := strings.Cut(variable, "=")
			i.environment[name] = value
		}
		all = append(all, i)
	}
	return all, nil
}
