package main

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/runnelhq/runnel/services/e2e/launch"
	"github.com/runnelhq/runnel/services/e2e/torture"
)

const (
	shortDuration = 25 * time.Second
	fullDuration  = 5 * time.Minute
	roundDuration = 90 * time.Second
	// smallStream is so small that committed commands must be purged constantly.
	smallStream = 64 << 10
)

// short returns the runs of the daily form: faults of a single machine on SQLite, a tour of a cluster's faults on
// PostgreSQL, and a power loss with its control.
func short(duration time.Duration) []torture.Config {
	return []torture.Config{
		{Name: "random faults", Store: launch.SQLite, NATSNodes: 1, Plan: torture.PlanRandom, Duration: duration, StreamBytes: smallStream},
		{Name: "tour", Store: launch.PostgreSQL, NATSNodes: 3, Plan: torture.PlanTour},
		{Name: "power loss", Store: launch.PostgreSQL, NATSNodes: 1, Plan: torture.PlanPower},
		{Name: "power loss, lazy database", Store: launch.PostgreSQL, NATSNodes: 1, Plan: torture.PlanPower, Lazy: torture.LazyDatabase},
	}
}

// full returns longer runs of random faults, with the loss of the broker's store, and with a NATS cluster of three.
func full(duration time.Duration) []torture.Config {
	return []torture.Config{
		{Name: "random faults", Store: launch.SQLite, NATSNodes: 1, Plan: torture.PlanRandom, Duration: duration, Wipe: true, StreamBytes: smallStream},
		{Name: "random faults, cluster", Store: launch.PostgreSQL, NATSNodes: 3, Plan: torture.PlanRandom, Duration: duration},
	}
}

// rounds returns the runs of the long form, which are repeated with new seeds each time.
func rounds(duration time.Duration) []torture.Config {
	return []torture.Config{
		{Name: "grand tour", Store: launch.PostgreSQL, NATSNodes: 3, Plan: torture.PlanGrandTour},
		{Name: "mix, cluster", Store: launch.PostgreSQL, NATSNodes: 3, Plan: torture.PlanMix, Duration: duration},
		{Name: "outages", Store: launch.PostgreSQL, NATSNodes: 3, Plan: torture.PlanOutages},
		{Name: "outages", Store: launch.SQLite, NATSNodes: 1, Plan: torture.PlanOutages},
		{Name: "random faults", Store: launch.SQLite, NATSNodes: 1, Plan: torture.PlanRandom, Duration: duration, Wipe: true},
		{Name: "wipe", Store: launch.SQLite, NATSNodes: 1, Plan: torture.PlanWipe},
		{Name: "mix", Store: launch.PostgreSQL, NATSNodes: 1, Plan: torture.PlanMix, Duration: duration},
		{Name: "power loss, lazy database", Store: launch.PostgreSQL, NATSNodes: 1, Plan: torture.PlanPower, Lazy: torture.LazyDatabase},
		{Name: "power loss, lazy database", Store: launch.SQLite, NATSNodes: 1, Plan: torture.PlanPower, Lazy: torture.LazyDatabase},
		{Name: "power loss, lazy NATS", Store: launch.PostgreSQL, NATSNodes: 1, Plan: torture.PlanPower, Lazy: torture.LazyNATS},
	}
}

// plan lists the requested runs; the long form continues after them.
func (c *cli) plan() []torture.Config {
	runs := full(orElse(c.Duration, fullDuration))
	switch {
	case c.Plan != "":
		runs = []torture.Config{{
			Name: c.Plan, Store: launch.PostgreSQL, NATSNodes: 3, Plan: torture.Plan(c.Plan), Lazy: torture.Lazy(c.Lazy), Duration: orElse(c.Duration, roundDuration),
		}}
		if c.Store != "" {
			runs[0].Store = launch.Store(c.Store)
		}
	case c.Short:
		runs = short(orElse(c.Duration, shortDuration))
	case c.Long:
		runs = rounds(orElse(c.Duration, roundDuration))
	}
	var chosen []torture.Config
	for _, cfg := range runs {
		if c.Store != "" && c.Store != string(cfg.Store) {
			continue
		}
		if cfg.Plan == torture.PlanWipe {
			cfg.NATSNodes = 1 // in a cluster the other servers have all the data
		}
		if c.NATSNodes != 0 && cfg.Plan != torture.PlanTour && cfg.Plan != torture.PlanGrandTour {
			cfg.NATSNodes = c.NATSNodes
		}
		cfg.Seed, cfg.FailFast = c.Seed, c.FailFast
		chosen = append(chosen, cfg)
	}
	return chosen
}

func orElse(d, other time.Duration) time.Duration {
	if d == 0 {
		return other
	}
	return d
}

// round returns the n-th run of the long form. The seed in it allows repeating this run alone.
func round(runs []torture.Config, seed uint64, n int) torture.Config {
	cfg := runs[n%len(runs)]
	cfg.Seed = rand.New(rand.NewPCG(seed, uint64(n))).Uint64N(1e9) + 1
	cfg.Name = fmt.Sprintf("round %d, %s", n+1, cfg.Name)
	return cfg
}
