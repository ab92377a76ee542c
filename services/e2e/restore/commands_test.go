package restore_test

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// blocks returns the blocks of shell commands below a heading of a page.
func blocks(t *testing.T, page, heading string) (all []string) {
	t.Helper()
	text, err := os.ReadFile("../../../" + page)
	require.NoError(t, err)
	_, section, found := strings.Cut(string(text), "\n## "+heading+"\n")
	require.True(t, found, "%s has no section %q", page, heading)
	section, _, _ = strings.Cut(section, "\n## ")
	for _, match := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(section, -1) {
		all = append(all, match[1])
	}
	return all
}

// desk is a directory in which an operator runs the commands of a page; bin has the programs.
type desk struct {
	t           *testing.T
	dir         string
	environment []string
}

// run runs commands, which must succeed, and returns what they print.
func (d *desk) run(commands string) string {
	d.t.Helper()
	out, err := d.try(commands)
	require.NoError(d.t, err, "%s\n%s", commands, out)
	return out
}

func (d *desk) try(commands string) (string, error) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	shell := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", commands)
	shell.Dir, shell.Env = d.dir, append(os.Environ(), d.environment...)
	out, err := shell.CombinedOutput()
	return string(out), err
}
