package readme

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	flagName     = regexp.MustCompile(`--([a-z]+(?:\.[a-z-]+)+)`)
	variableName = regexp.MustCompile(`\bRUNNEL_[A-Z_]*[A-Z]\b`)
	alertName    = regexp.MustCompile("`(Runnel[A-Z]\\w+)`")
)

// TestNamesInTheText: settings, variables and alerts that the pages name in their text exist.
func TestNamesInTheText(t *testing.T) {
	programs, known := build(t), map[string]bool{}
	for _, command := range [][]string{
		{"runnel", "serve"},
		{"runnel", "chat"},
		{"runnel", "token"},
		{"runnel", "verify"},
		{"runnel", "admin"},
		{"runnel-gateway"},
		{"runnel-delivery"},
		{"runnel-history", "serve"},
	} {
		help, err := exec.CommandContext(ended(t), filepath.Join(programs, command[0]), append(command[1:], "--help")...).Output()
		require.NoError(t, err, command)
		for _, match := range flagName.FindAllSubmatch(help, -1) {
			known["--"+string(match[1])] = true
		}
		for _, name := range variableName.FindAll(help, -1) {
			known[string(name)] = true
			known[string(name)+"_FILE"] = true
		}
	}
	for _, match := range regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(read(t, "deploy/alerts/runnel.rules.yaml"), -1) {
		known[match[1]] = true
	}
	require.Greater(t, len(known), 200)
	for page, least := range map[string]int{"README.md": 15, "deploy/README.md": 35} {
		named := unknown(read(t, page), nil)
		require.Greater(t, len(named), least, page)
		require.Empty(t, unknown(read(t, page), known), page)
	}
	require.Equal(t, []string{"--gateway.max-sokets", "RUNNEL_AUHT_ISSUER", "RunnelBroken"},
		unknown("`--gateway.max-sokets` or `--gateway.max-sockets`, `RUNNEL_AUHT_ISSUER`, `RunnelBroken`", known))
}

// unknown returns the names in a text that are not known.
func unknown(text string, known map[string]bool) []string {
	var all []string
	names := flagName.FindAllString(text, -1)
	names = append(names, variableName.FindAllString(text, -1)...)
	for _, match := range alertName.FindAllStringSubmatch(text, -1) {
		names = append(names, match[1])
	}
	for _, name := range names {
		if !known[name] {
			all = append(all, name)
		}
	}
	return all
}
