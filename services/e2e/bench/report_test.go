package bench

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func sample() *Report {
	r := &Report{Date: time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC), Options: Options{Runs: 3, Window: 8}}
	for _, v := range []float64{17_000, 15_000, 15_900} {
		r.add(standalone, "closed", "rate", v)
	}
	for _, v := range []float64{0.91, 0.6, 0.65} {
		r.add(standalone, "groups", "p50", v)
	}
	r.add(separate, "groups", "p50", 3.2)
	r.complete()
	return r
}

func TestMediansRangesAndTargets(t *testing.T) {
	r := sample()
	rate := r.find(standalone, "closed", "rate")
	require.Equal(t, []float64{15_900, 15_000, 17_000}, []float64{rate.Median, rate.Min, rate.Max})
	require.False(t, rate.Met, "more would be better")
	require.True(t, r.find(standalone, "groups", "p50").Met)
	require.False(t, r.find(separate, "groups", "p50").Met)
	require.InDelta(t, 2.5, median([]float64{4, 1, 2, 3}), 0)

	var out strings.Builder
	r.Print(&out)
	require.Contains(t, out.String(), "15,900 (15,000–17,000)")
	require.Contains(t, out.String(), "target 18,000: MISSED")
	require.Contains(t, out.String(), "target 0.70: met")
}

func TestNumbersAreShort(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 1: "1", 0.438: "0.44", 5.004: "5.00", 12: "12", 12.34: "12.3", 123.4: "123", 999.6: "1,000", 704_000: "704,000", 2_998_399: "2,998,399"} {
		require.Equal(t, want, number(v))
	}
}

func TestTheTableIsWrittenBetweenItsMarks(t *testing.T) {
	page, err := os.ReadFile("README.md")
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "README.md")
	require.NoError(t, os.WriteFile(path, page, 0o600))
	for range 2 {
		require.NoError(t, sample().WriteREADME(path))
	}
	written, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Contains(t, string(written), "| **15,900 (15,000–17,000)** |")
	require.Equal(t, 1, strings.Count(string(written), beginFigures))
	before, _, _ := strings.Cut(string(page), beginFigures)
	require.True(t, strings.HasPrefix(string(written), before))
	_, after, _ := strings.Cut(string(page), endFigures)
	require.True(t, strings.HasSuffix(string(written), after))

	require.NoError(t, os.WriteFile(path, []byte("nothing\n"), 0o600))
	require.ErrorContains(t, sample().WriteREADME(path), "no place for figures")
	r := sample()
	r.Options.Smoke = true
	require.Error(t, r.WriteREADME(path))
}

func TestEveryRowBelongsToAScenario(t *testing.T) {
	numbers := map[int]bool{}
	for _, s := range scenarios {
		numbers[s.number] = true
	}
	seen := map[string]bool{}
	for _, row := range rows {
		require.True(t, numbers[row.scenario], row.what)
		require.False(t, seen[row.key+row.metric], row.what)
		seen[row.key+row.metric] = true
	}
}

func TestNonsenseIsRefused(t *testing.T) {
	good := Config{Runs: 1, Window: time.Second}
	_, _, err := good.complete()
	require.NoError(t, err)
	for _, bad := range []Config{{}, {Runs: 1, Window: 1}, {Runs: 1, Window: time.Second, Only: []int{1, 99}}} {
		_, _, err := bad.complete()
		require.Error(t, err)
	}
}

func TestOnlyASmokeRunSharesItsSystem(t *testing.T) {
	runs := map[string]int{} // scenarios by mode
	for _, s := range scenarios {
		for _, mode := range []string{standalone, separate} {
			if s.mode == "" || s.mode == mode {
				runs[mode]++
			}
		}
	}
	require.Len(t, Config{}.plan(standalone), runs[standalone])
	require.Len(t, Config{}.plan(separate), runs[separate])
	require.Len(t, Config{Only: []int{2, 9}}.plan(separate), 3)
	require.Len(t, Config{Quick: true, Only: []int{2, 9}}.plan(separate), 2)
	require.Empty(t, Config{Only: []int{9}}.plan(standalone))
	require.Empty(t, Config{Only: []int{14}}.plan(separate))
	require.Len(t, Config{Smoke: true}.plan(separate), 1)
	variants := 2 // of scenarios 2 and 5
	require.Len(t, Config{Smoke: true}.plan(separate)[0], runs[separate]-variants)
}
