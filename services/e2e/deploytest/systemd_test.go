package deploytest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/services/e2e/launch"
)

// unit is the section [Service] of a systemd unit: the values of each directive in their order.
type unit map[string][]string

func parseUnit(text string) unit {
	u, section := unit{}, ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			section = line
		}
		if name, value, ok := strings.Cut(line, "="); ok && section == "[Service]" && !strings.HasPrefix(line, "#") {
			u[name] = append(u[name], value)
		}
	}
	return u
}

// last is the value of a directive that counts.
func (u unit) last(name string) string {
	if values := u[name]; len(values) > 0 {
		return values[len(values)-1]
	}
	return ""
}

// check compares the unit with what the program has. Its directories are made below root.
func (u unit) check(program *Program, root string) []string {
	var wrong []string
	must := func(kept bool, format string, args ...any) {
		if !kept {
			wrong = append(wrong, fmt.Sprintf(format, args...))
		}
	}
	state, credentials := filepath.Join(root, "state"), filepath.Join(root, "credentials")
	if err := os.MkdirAll(credentials, 0o700); err != nil {
		return []string{err.Error()}
	}
	for _, each := range u["LoadCredential"] {
		name, source, _ := strings.Cut(each, ":")
		must(strings.HasPrefix(source, "/etc/runnel/"), "the credential %s comes from %s", name, source)
		if err := os.WriteFile(filepath.Join(credentials, name), []byte(strings.Repeat("s", 44)+"\n"), 0o600); err != nil {
			return []string{err.Error()}
		}
	}
	environment := map[string]string{}
	for _, each := range u["Environment"] {
		name, value, _ := strings.Cut(each, "=")
		must(program.Variables[name], "the program does not know %s", name)
		must(!secretName.MatchString(name) || strings.HasPrefix(value, "%d/"), "the secret %s is no credential", name)
		environment[name] = strings.ReplaceAll(value, "%d", credentials)
	}
	command := strings.Fields(strings.ReplaceAll(u.last("ExecStart"), "${STATE_DIRECTORY}", state))
	must(len(command) > 1 && command[0] == "/usr/local/bin/runnel" && command[1] == "serve", "it runs %v", command)
	settings, err := program.Settings(environment, command[1:]...)
	if err != nil {
		return append(wrong, err.Error())
	}
	must(settings["data-dir"] == state && u.last("StateDirectory") != "", "data goes to %s, which is not the unit's state directory", settings["data-dir"])
	for _, name := range []string{"auth.hmac-secret", "admin.token"} {
		file := settings[name+"-file"]
		_, err := os.Stat(file)
		must(file != "" && err == nil, "%s is %q, which is no credential", name+"-file", file)
	}

	files, err := strconv.Atoi(u.last("LimitNOFILE"))
	connections, _ := strconv.Atoi(settings["gateway.max-connections"])
	if connections == 0 { // as many as the descriptors allow, at most
		connections = 100_000
	}
	const others = 10_000 // of NATS, the database, and people who are not connected yet
	must(err == nil && connections > 0 && files >= connections+others, "%d files are too few for %d connections", files, connections)

	stop := 10 * time.Second // for what is left: traces, goroutines
	for _, name := range []string{"gateway.drain", "rpc.stop-timeout", "delivery.stop-timeout"} {
		took, err := time.ParseDuration(settings[name])
		must(err == nil, "%s is %q", name, settings[name])
		stop += took
	}
	patience, err := time.ParseDuration(u.last("TimeoutStopSec"))
	must(err == nil && patience >= stop, "it is killed after %v, and may need %v to stop", patience, stop)
	for name, want := range map[string]string{
		"Restart": "on-failure", "DynamicUser": "yes", "ProtectSystem": "strict", "ProtectHome": "yes", "StateDirectoryMode": "0700", "UMask": "0077",
	} {
		must(u.last(name) == want, "%s is %q, not %s", name, u.last(name), want)
	}
	return wrong
}

// The systemd unit sets only what the program has, gives it the files and the time that it needs, and is one that systemd accepts.
func TestSystemdUnit(t *testing.T) {
	built, err := launch.Build(t.Context(), t.TempDir(), "", launch.Standalone)
	require.NoError(t, err)
	help, err := helpOf(t.Context(), built[launch.Standalone])
	require.NoError(t, err)
	program := &Program{Path: built[launch.Standalone], Variables: variables(help)}
	text := read(t, filepath.Join(deployDir, "systemd", "runnel.service"))
	require.Empty(t, parseUnit(text).check(program, t.TempDir()))

	for finding, change := range map[string][2]string{
		"does not know RUNNEL_ADMIN_TOKENS_FILE":         {"RUNNEL_ADMIN_TOKEN_FILE", "RUNNEL_ADMIN_TOKENS_FILE"},
		"the secret RUNNEL_ADMIN_TOKEN is no credential": {"RUNNEL_ADMIN_TOKEN_FILE=%d/admin-token", "RUNNEL_ADMIN_TOKEN=0123456789abcdef"},
		"refuses its settings":                           {"--data-dir", "--data"},
		"not the unit's state directory":                 {"${STATE_DIRECTORY}", "/srv"},
		`admin.token-file is ""`:                         {"Environment=RUNNEL_ADMIN_TOKEN_FILE=%d/admin-token\n", ""},
		"auth.hmac-secret-file is":                       {"LoadCredential=auth:/etc/runnel/auth\n", ""},
		"65536 files are too few for 100000 connections": {"LimitNOFILE=131072", "LimitNOFILE=65536"},
		"it is killed after 15s, and may need":           {"TimeoutStopSec=45s", "TimeoutStopSec=15s"},
		`ProtectSystem is "full"`:                        {"ProtectSystem=strict", "ProtectSystem=full"},
	} {
		require.Contains(t, text, change[0])
		wrong := parseUnit(strings.ReplaceAll(text, change[0], change[1])).check(program, t.TempDir())
		require.Contains(t, strings.Join(wrong, "\n"), finding)
	}

	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Log("systemd-analyze is not installed: systemd itself has not read the unit")
		return
	}
	file := filepath.Join(t.TempDir(), "runnel.service")
	require.NoError(t, os.WriteFile(file, []byte(strings.ReplaceAll(text, "/usr/local/bin/runnel", program.Path)), 0o600))
	output, err := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", file).CombinedOutput()
	require.NoError(t, err, string(output))
	require.Empty(t, string(output))
	// Its exposure, from 0 to 10: 1.4 when this was written.
	output, err = exec.CommandContext(t.Context(), analyze, "security", "--offline=true", "--no-pager", "--threshold=20", file).CombinedOutput()
	if strings.Contains(string(output), "unrecognized option") {
		t.Log("this systemd-analyze is too old to judge a unit offline")
		return
	}
	require.NoError(t, err, string(output))
}

// The example of a plain Prometheus scrapes every service by the names that alerts go by, with the token.
func TestPrometheusExampleNamesTheServices(t *testing.T) {
	text := read(t, filepath.Join(deployDir, "prometheus", "prometheus.yaml"))
	var jobs []string
	for _, match := range regexp.MustCompile(`(?m)job_name: (\S+)\n    authorization: \{type: Bearer, credentials_file: runnel-admin-token\}$`).FindAllStringSubmatch(text, -1) {
		jobs = append(jobs, match[1])
	}
	slices.Sort(jobs)
	require.Equal(t, []string{"runnel", "runnel-delivery", "runnel-gateway", "runnel-history"}, jobs)
}
