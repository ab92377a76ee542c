package bench

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/services/e2e/launch"
)

func TestADifferenceCountsOnlyOutsideTheNoise(t *testing.T) {
	for name, test := range map[string]struct {
		first, second []float64
		more          bool
		want          Verdict
	}{
		"apart, less is better":         {[]float64{10, 11, 12}, []float64{7, 8, 9}, false, Better},
		"apart, more is better":         {[]float64{10, 11, 12}, []float64{7, 8, 9}, true, Worse},
		"apart, higher":                 {[]float64{10, 11, 12}, []float64{13, 14, 15}, false, Worse},
		"overlapping":                   {[]float64{10, 11, 12}, []float64{7, 8, 10.5}, false, Noise},
		"equal":                         {[]float64{1, 1, 1}, []float64{1, 1, 1}, false, Noise},
		"two rounds":                    {[]float64{10, 11}, []float64{1, 2}, false, TooFew},
		"overlapping, but always less":  {[]float64{10, 20, 30, 40, 50, 60}, []float64{9, 19, 29, 39, 49, 59}, false, Better},
		"the same with one exception":   {[]float64{10, 20, 30, 40, 50, 60}, []float64{9, 19, 29, 39, 49, 61}, false, Noise},
		"always less in too few rounds": {[]float64{10, 20, 30, 40, 50}, []float64{9, 19, 29, 39, 49}, false, Noise},
		"many equal rounds":             {[]float64{1, 1, 1, 1, 1, 1}, []float64{1, 1, 1, 1, 1, 1}, false, Noise},
	} {
		require.Equal(t, test.want, against(test.first, test.second, test.more).Verdict, name)
	}
}

func TestRatiosAreThoseOfTheRounds(t *testing.T) {
	got := against([]float64{10, 20, 40}, []float64{5, 30, 40}, false)
	require.Equal(t, Against{Ratio: 1, Min: 0.5, Max: 1.5, Verdict: Noise}, got)
	require.Zero(t, against([]float64{-1, 2, 3}, []float64{1, 2, 3}, false).Ratio, "a difference of memory may be negative")
}

func TestAComparisonNeedsTheFiguresOfAllBuilds(t *testing.T) {
	first, second := &Report{}, &Report{}
	for i := range 3 {
		first.append(reportOf("groups", "p50", 1+float64(i)/10))
		second.append(reportOf("groups", "p50", 2+float64(i)/10))
		first.append(reportOf("closed", "rate", 1000))
	}
	c := &Comparison{Builds: []Build{{Name: "A", Path: "/a"}, {Name: "B", Path: "/b", Settings: []string{"GOGC=400"}}}, Date: time.Now()}
	c.complete([]*Report{first, second})
	require.Len(t, c.Rows, 1)
	require.Equal(t, "p50", c.Rows[0].Metric)
	require.Equal(t, Worse, c.Rows[0].Against[0].Verdict)
	var out strings.Builder
	c.Print(&out)
	require.Contains(t, out.String(), "B: /b  [GOGC=400]")
	require.Contains(t, out.String(), "1.10 (1–1.20)")
	require.Contains(t, out.String(), "B/A 1.909 (1.833–2.000)")
	require.Contains(t, out.String(), "worse")
	require.NoError(t, c.WriteJSON(filepath.Join(t.TempDir(), "figures.json")))
}

func reportOf(key, metric string, value float64) *Report {
	r := &Report{}
	r.add(standalone, key, metric, value)
	return r
}

func TestABuildIsAPathWithSettings(t *testing.T) {
	b, err := parseBuild("/a --gateway.drain=1s GOGC=400")
	require.NoError(t, err)
	require.Equal(t, "/a", b.path)
	require.Equal(t, []string{"--gateway.drain=1s"}, b.flags)
	require.Equal(t, []string{"GOGC=400"}, b.environment)
	for _, bad := range []string{"", " ", "/a b", "/a =b"} {
		_, err := parseBuild(bad)
		require.Error(t, err, bad)
	}
}

func TestProgramsGetTheFlagsThatTheyKnow(t *testing.T) {
	b := &build{flags: []string{"--delivery.x=1", "--no-gateway.y"}, known: map[string]map[string]bool{
		launch.Delivery: {"delivery.x": true, "admin.pprof": true}, launch.Gateway: {"gateway.y": true, "gateway.frame-rate": true},
	}}
	flags := b.flagsWith([]string{"--admin.pprof"})
	require.Equal(t, []string{"--admin.pprof", "--delivery.x=1"}, flags[launch.Delivery])
	require.Equal(t, []string{"--gateway.frame-rate=1000000", "--no-gateway.y"}, flags[launch.Gateway])
	require.Empty(t, flags[launch.History])
	require.True(t, b.knowsAnywhere("--delivery.x=1"))
	require.False(t, b.knowsAnywhere("--delivery.z"))
	require.Subset(t, (&build{}).flagsWith(nil)[launch.Standalone], limits)
}

func TestADirectoryWithoutProgramsIsRefused(t *testing.T) {
	b, err := parseBuild(t.TempDir())
	require.NoError(t, err)
	require.ErrorContains(t, b.prepare(t.Context(), standalone), "neither a checkout (go.work) nor a directory with the program runnel")
}

func TestAComparisonTakesTwoBuilds(t *testing.T) {
	for _, bad := range []Config{{Compare: true}, {Compare: true, Builds: []string{"a"}}, {Builds: []string{"a", "b"}}} {
		bad.Window = time.Second
		_, _, err := bad.complete()
		require.ErrorContains(t, err, "--compare needs two or more builds")
	}
	cfg, _, err := Config{Window: time.Second, Compare: true, Builds: []string{"a", "b"}}.complete()
	require.NoError(t, err)
	require.Equal(t, defaultRounds, cfg.Runs)
	cfg, _, err = Config{Window: time.Second}.complete()
	require.NoError(t, err)
	require.Equal(t, defaultRuns, cfg.Runs)
}
