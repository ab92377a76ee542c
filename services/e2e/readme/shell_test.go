package readme

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/runnelhq/runnel/services/e2e/devkeys"
	"github.com/runnelhq/runnel/services/e2e/launch"
)

const root = "../../.."

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, path))
	require.NoError(t, err)
	return string(data)
}

// workshop is where the programs of Runnel are built, once for all tests.
var workshop string

func TestMain(m *testing.M) {
	code := m.Run()
	if workshop != "" {
		_ = os.RemoveAll(workshop)
	}
	os.Exit(code)
}

// build returns the directory with the programs of Runnel.
func build(t *testing.T) string {
	t.Helper()
	if workshop == "" {
		dir, err := os.MkdirTemp("", "runnel-readme-") //nolint:usetesting // outlives the test that happens to build first
		require.NoError(t, err)
		workshop = dir
		_, err = launch.Build(ended(t), dir, "", own...)
		require.NoError(t, err)
	}
	return workshop
}

// wrong runs a page's blocks of shell commands, and returns what is wrong in them and what they started.
func wrong(ctx context.Context, t *testing.T, page, programs string, server *server) (findings []string, started []invocation) {
	t.Helper()
	dir := t.TempDir()
	sh, err := newShell(dir)
	require.NoError(t, err)
	sh.programs = programs
	if server != nil {
		sh.server = filepath.Join(dir, "server")
		require.NoError(t, os.WriteFile(sh.server, []byte(server.commands()), 0o600))
		require.NoError(t, os.Symlink(server.dir, filepath.Join(dir, "runnel-data")))
	}
	// The page makes them with `go run`, which is only recorded here.
	_, err = devkeys.Make(filepath.Join(dir, "keys"), []string{"localhost", "127.0.0.1"}, time.Hour)
	require.NoError(t, err)
	c := checker{root: root, dir: dir, programs: programs}
	if helm, err := filepath.Abs(filepath.Join(root, ".tools/bin/helm")); err == nil {
		if _, err := os.Stat(helm); err == nil {
			c.helm = helm
		}
	}
	require.True(t, c.helm != "" || os.Getenv("CI") == "", "helm is not built: make tools")
	for _, f := range fences(page, "sh") {
		all, err := sh.run(ctx, f)
		if err != nil {
			findings = append(findings, err.Error())
		}
		for _, i := range all {
			if err := c.check(ctx, i); err != nil {
				findings = append(findings, err.Error())
			}
		}
		started = append(started, all...)
	}
	return findings, started
}

// TestShellCommands runs every block of shell commands in both pages. Commands that end by themselves are run against a server; every
// other command is compared with the settings of its program, the Makefile, the chart and the files of the repository.
func TestShellCommands(t *testing.T) {
	programs := build(t)
	server := startServer(t, programs)
	for page, least := range map[string]int{"README.md": 25, "deploy/README.md": 25} {
		t.Run(page, func(t *testing.T) {
			findings, started := wrong(ended(t), t, read(t, page), programs, server)
			require.Empty(t, findings)
			require.Greater(t, len(started), least)
			for _, i := range started {
				t.Log(i)
			}
		})
	}
	t.Run("mistakes", func(t *testing.T) { testMistakes(t, programs, server) })
}

// testMistakes: each mistake in a page is found.
func testMistakes(t *testing.T, programs string, server *server) {
	t.Helper()
	for block, finding := range map[string]string{
		"bin/runnel chat alice --also bob":                                  "unknown flag --also",
		"bin/runnel chatt alice":                                            "unexpected argument chatt",
		"RUNNEL_AUHT_ISSUER=x bin/runnel":                                   "RUNNEL_AUHT_ISSUER",
		"bin/runnel-gateway --gateway.listen 127.0.0.1:8081 --rcp.listen x": "unknown flag --rcp.listen",
		"echo hello | bin/runnel chat alice --with 'bob\u202e'":             "exit status 1",
		"make rnu":                     "no target rnu",
		"make run ARGS='--data-dri x'": "unknown flag --data-dri",
		"helm install runnel deploy/helm/runnel --set ingres.enabled=true":     "ingres",
		"kubectl apply -f deploy/manifests/runel.yaml":                         "deploy/manifests/runel.yaml",
		"go run ./services/e2e/cmd/cert --dir keys":                            "services/e2e/cmd/cert",
		"bin/runnel-history --history.database x:y":                            "history.database",
		"bin/runnel admin explain --user bob --conversation C --seq forty-two": "--seq",
		"if true; then":      "syntax error",
		"runel admin status": "runel: command not found",
	} {
		findings, _ := wrong(ended(t), t, "```sh\n"+block+"\n```\n", programs, server)
		require.Contains(t, strings.Join(findings, "\n"), finding, block)
	}
}

// TestYAML: blocks of YAML can be read.
func TestYAML(t *testing.T) {
	for _, page := range []string{"README.md", "deploy/README.md"} {
		for _, f := range fences(read(t, page), "yaml") {
			var content any
			require.NoError(t, yaml.Unmarshal([]byte(f.text), &content), "%s, line %d", page, f.line)
			require.NotEmpty(t, content)
		}
	}
}

// TestEveryFenceIsOfAKindThatIsChecked: a block in another language would be checked by nothing.
func TestEveryFenceIsOfAKindThatIsChecked(t *testing.T) {
	for _, page := range []string{"README.md", "deploy/README.md"} {
		text, known := read(t, page), 0
		for _, language := range []string{"sh", "yaml", "go", "json", "text", "mermaid"} {
			known += len(fences(text, language))
		}
		require.Equal(t, strings.Count("\n"+text, "\n```"), 2*known, page)
	}
}
