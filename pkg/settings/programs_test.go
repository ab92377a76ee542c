package settings_test

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/buildinfo"
	"github.com/runnelhq/runnel/pkg/settings"
)

// --version works even if other settings are invalid.
func TestVersion(t *testing.T) {
	t.Setenv("RUNNEL_NO_SUCH_THING", "x")
	t.Setenv("RUNNEL_GATEWAY_MAX_CONNECTIONS", "many")
	got := run(t, "--version")
	require.Equal(t, 0, got.exit)
	require.Equal(t, "runnel "+buildinfo.Read().String()+"\n", got.stdout)

	var cli struct{}
	var out bytes.Buffer
	exit := -1
	parser, err := kong.New(&cli, kong.Name("tool"), settings.VersionFlag(), kong.Writers(&out, &out), kong.Exit(func(code int) { exit = code }))
	require.NoError(t, err)
	_, _ = parser.Parse([]string{"--version"})
	require.Equal(t, 0, exit)
	require.Equal(t, "tool "+buildinfo.Read().String()+"\n", out.String())
}

// Every program has --version.
func TestEveryProgramHasAVersion(t *testing.T) {
	programs, err := filepath.Glob("../../services/*/cmd/*")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(programs), 8)
	version := regexp.MustCompile(`settings\.Parse\(|settings\.VersionFlag\(|buildinfo\.Read\(`)
	for _, program := range programs {
		main, err := os.ReadFile(filepath.Join(program, "main.go"))
		require.NoError(t, err)
		require.Regexp(t, version, string(main), program)
	}
}
