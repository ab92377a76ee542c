package settings_test

import (
	"bytes"
	"os"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/settings"
)

func TestParseSaysWhatToDoNext(t *testing.T) {
	for _, test := range []struct {
		args       []string
		exit       int
		want, hint string
	}{
		{[]string{"--gateway.max-conections=5"}, settings.ExitUsage, "did you mean", `Run "runnel --help"`},
		{[]string{"token"}, settings.ExitUsage, `expected "<user>"`, `Run "runnel token --help"`},
		{[]string{"--config=none.yaml"}, settings.ExitUsage, "settings file none.yaml", `Run "runnel`},
		{[]string{"token", "ann"}, -1, "", ""},
		{[]string{"--help"}, 0, "", ""},
	} {
		exit, stderr := -1, bytes.Buffer{}
		args := os.Args
		os.Args = append([]string{"runnel"}, test.args...)
		func() {
			defer func() { os.Args = args; _ = recover() }() // return at once, like exit
			settings.Parse("runnel", "", &sample{}, kong.Writers(&bytes.Buffer{}, &stderr),
				kong.Exit(func(code int) { exit = code; panic("exit") }))
		}()
		require.Equal(t, test.exit, exit, test.args)
		require.Contains(t, stderr.String(), test.want)
		require.Contains(t, stderr.String(), test.hint)
	}
}
