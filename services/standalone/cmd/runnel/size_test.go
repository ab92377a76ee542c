package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/services/standalone/sizing"
)

// sized runs the command with arguments.
func sized(t *testing.T, args ...string) string {
	t.Helper()
	var s sizeCommand
	parser, err := kong.New(&s)
	require.NoError(t, err)
	_, err = parser.Parse(args)
	require.NoError(t, err)
	var out strings.Builder
	require.NoError(t, s.run(&out))
	return out.String()
}

func TestSizePrintsATable(t *testing.T) {
	text := sized(t)
	for _, part := range []string{"gateway", "NATS", "delivery", "history", "PostgreSQL", "all"} {
		require.Contains(t, text, part)
	}
	require.Contains(t, text, "Figures: 20")
	require.NotContains(t, text, "EXCEEDED")
}

// A million connections, a hundred thousand messages per second, ten million conversations.
func TestSizeSaysWhatBreaksFirst(t *testing.T) {
	large := []string{"--connections=1e6", "--messages=1e5", "--conversations=1e7", "--days=30"}
	text := sized(t, large...)
	require.Contains(t, text, "EXCEEDED")
	require.Contains(t, text, "--divide")
	text = sized(t, append(large, "--divide")...)
	require.NotContains(t, text, "EXCEEDED")
	require.Contains(t, text, "this version does not support them")

	var plan sizing.Plan
	require.NoError(t, json.Unmarshal([]byte(sized(t, append(large, "--divide", "--json")...)), &plan))
	require.True(t, plan.Fits())
	require.Greater(t, plan.Machines.Databases, 1.0)
	require.NotEmpty(t, plan.Parts[0].Causes)
}

func TestSizeRefusesNonsense(t *testing.T) {
	require.ErrorIs(t, (&sizeCommand{}).run(&strings.Builder{}), sizing.ErrNotPositive)
}

func TestShortNumbers(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.001: "<0.01", 0.5: "0.50", 3: "3", 9.99: "9.99", 12.4: "12", 1234.5: "1,235", 1e7: "10,000,000"} {
		require.Equal(t, want, short(v))
	}
}
