package buildinfo

import (
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

func TestBuilds(t *testing.T) {
	const hash = "0123456789abcdef0123456789abcdef01234567"
	recorded := func(version string, settings ...debug.BuildSetting) *debug.BuildInfo {
		return &debug.BuildInfo{Main: debug.Module{Version: version}, Settings: settings}
	}
	vcs := []debug.BuildSetting{
		{Key: "vcs.revision", Value: hash},
		{Key: "vcs.time", Value: "2026-01-02T03:04:05Z"},
		{Key: "vcs.modified", Value: "true"},
	}
	for name, test := range map[string]struct {
		stamped       Info
		recorded      *debug.BuildInfo
		version, text string
	}{
		"a release": {
			Info{Release: "1.2.3", Commit: hash, Date: "2026-01-02T03:04:05Z"},
			recorded("(devel)"),
			"1.2.3", "1.2.3, commit " + hash + ", 2026-01-02T03:04:05Z, ",
		},
		"a release, changed": {
			Info{Release: "1.2.3", Commit: hash, Modified: true},
			recorded("(devel)"),
			"1.2.3-0123456789ab+modified", "1.2.3, commit " + hash + " with changes, ",
		},
		"go build in a clone": {
			Info{},
			recorded("(devel)", vcs...),
			"devel-0123456789ab+modified", "devel, commit " + hash + " with changes, 2026-01-02T03:04:05Z, ",
		},
		"go install module@version":  {Info{}, recorded("v1.2.3"), "1.2.3", "1.2.3, "},
		"without version control":    {Info{}, recorded("(devel)"), "devel", "devel, "},
		"without module information": {Info{}, nil, "devel", "devel, "},
	} {
		got := read(test.stamped, test.recorded)
		require.Equal(t, test.version, got.Version(), name)
		require.Equal(t, test.text+runtime.Version(), got.String(), name)
	}
}

func TestTheMetric(t *testing.T) {
	require.NoError(t, testutil.CollectAndCompare(Collector(), strings.NewReader(`
# HELP runnel_build_info Always 1; the labels say which build this is.
# TYPE runnel_build_info gauge
runnel_build_info{commit="`+Read().Commit+`",date="`+Read().Date+`",go="`+runtime.Version()+`",version="`+Read().Version()+`"} 1
`)))
}
