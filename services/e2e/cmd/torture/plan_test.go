package main

import (
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/services/e2e/launch"
	"github.com/runnelhq/runnel/services/e2e/torture"
)

func plans(runs []torture.Config) (all []torture.Plan) {
	for _, cfg := range runs {
		all = append(all, cfg.Plan)
	}
	return all
}

func TestTheShortFormHasALossOfPowerAndItsControl(t *testing.T) {
	runs := (&cli{Short: true, Seed: 7}).plan()
	require.Equal(t, []torture.Plan{torture.PlanRandom, torture.PlanTour, torture.PlanPower, torture.PlanPower}, plans(runs))
	require.Equal(t, []torture.Lazy{torture.LazyNobody, torture.LazyDatabase}, []torture.Lazy{runs[2].Lazy, runs[3].Lazy})
	for _, cfg := range runs {
		require.EqualValues(t, 7, cfg.Seed)
	}
	// --prove makes one run of a build with the client's bug.
	require.Len(t, (&cli{Short: true, Store: "sqlite", Duration: time.Second}).plan(), 1)
}

func TestTheLongFormGoesRoundWithOtherSeeds(t *testing.T) {
	runs := (&cli{Long: true}).plan()
	seen := map[torture.Plan]bool{}
	for n := range 2 * len(runs) {
		cfg := round(runs, 5, n)
		require.Equal(t, cfg, round(runs, 5, n))
		require.NotEqual(t, cfg.Seed, round(runs, 5, n+len(runs)).Seed)
		require.Equal(t, cfg.Plan, round(runs, 5, n+len(runs)).Plan)
		seen[cfg.Plan] = true
	}
	require.Len(t, seen, 6, "%v", seen)
}

func TestOnePlanAlone(t *testing.T) {
	runs := (&cli{Plan: "power", Store: "sqlite", NATSNodes: 1, Lazy: "nats"}).plan()
	require.Len(t, runs, 1)
	require.Equal(t, torture.Config{Name: "power", Plan: torture.PlanPower, Store: launch.SQLite, NATSNodes: 1, Lazy: torture.LazyNATS, Duration: roundDuration}, runs[0])
}

func TestVersionsAreMixedUnlessToldOtherwise(t *testing.T) {
	for flag, mixes := range map[string]bool{"--short": true, "--roll": true, "--no-mix-versions": false} {
		var c cli
		parser, err := kong.New(&c)
		require.NoError(t, err)
		_, err = parser.Parse([]string{flag})
		require.NoError(t, err)
		require.Equal(t, mixes, c.MixVersions, flag)
	}
}

func TestASkippedRunIsNeitherGreenNorRed(t *testing.T) {
	var out strings.Builder
	skipped := &torture.Report{Name: "power loss", Skipped: "skipped: needs root"}
	require.Equal(t, green, summary(&out, []*torture.Report{{Name: "tour"}, skipped}))
	require.Contains(t, out.String(), "1 green, 0 red, 1 skipped")
	require.Contains(t, out.String(), "needs root")
	require.False(t, skipped.Green())
	require.Equal(t, red, summary(&out, []*torture.Report{{Name: "tour", Violations: []torture.Violation{{Invariant: "I1"}}}}))
}
