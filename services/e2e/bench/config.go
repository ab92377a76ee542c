package bench

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Config selects the scenarios and the duration of measurements.
type Config struct {
	Mode   string        `help:"standalone (SQLite, NATS inside), separate (processes, PostgreSQL) or both." enum:"standalone,separate,both" default:"both"`
	Only   []int         `help:"Numbers of the scenarios to run, separated by commas. Defaults to all."`
	Runs   int           `help:"Number of runs of each scenario, from which medians and ranges are computed. Defaults to 3, and to 5 with --compare."`
	Window time.Duration `help:"How long each run measures." default:"8s"`
	Warmup time.Duration `help:"How long the load runs before the first measurement." default:"2s"`
	Quick  bool          `help:"One short run of each scenario, for a first impression."`
	Smoke  bool          `help:"One tiny run of each scenario, in seconds, to check that it works. The figures are meaningless."`

	Compare bool     `help:"Compare builds: run each scenario on one after the other, in turn, and print ratios to the first."`
	Builds  []string `arg:"" optional:"" name:"build" help:"With --compare: two or more checkouts, or directories of programs. Settings may follow a path in the same argument: 'DIR --flag=value NAME=VALUE'."`

	SampleRatio float64 `help:"Share of traces that the services record and send to a collector that only counts them. The tables in README.md are measured with 0."`

	JSON    string `name:"json" help:"Write all figures to this file." type:"path" placeholder:"FILE"`
	Write   bool   `help:"Write the tables of services/e2e/bench/README.md."`
	Profile string `help:"Keep CPU and allocation profiles of every service during the last run in this directory. Profiling makes the figures worse." type:"path" placeholder:"DIR"`
	Keep    string `help:"Keep data and logs in a new directory below this one." type:"path" placeholder:"DIR"`
}

// sizes are the sizes of a scenario's load.
type sizes struct {
	groups, groupSize int
	rate              int   // messages/s over all groups
	ackRates          []int // messages/s over all groups, for committed acks
	room              int   // members of the room
	roomWindow        int   // messages in flight to the room, without a fixed rate
	roomRate          int   // messages/s to the room, at a fixed rate
	idle, idleGroup   int
	idleRest          time.Duration // time between connecting and measuring memory
	back, missed      int
	long              int
	failGroups        int
	failRate          int
	failAfter         time.Duration // how long the load continues after a fault
	fastRate          int           // messages/s over all groups
	fewInFlight       int           // messages to the room
	many              manyGroups
	some, lots        int // messages after which memory is measured
}

// manyGroups are the sizes of scenarios whose users are members of several groups each.
type manyGroups struct {
	users, idle int // connections, and idle groups of them
	burst       int // groups that are created at once
	rate        int // messages/s into idle groups
}

// full are the sizes to which the targets refer.
var full = sizes{
	groups: 500, groupSize: 4, rate: 1000, ackRates: []int{100, 1000, 2000},
	room: 1000, roomWindow: 256, roomRate: 20,
	idle: 10_000, idleGroup: 10, idleRest: 5 * time.Second,
	back: 1000, missed: 100, long: 10_000,
	failGroups: 100, failRate: 500, failAfter: 6 * time.Second,
	fastRate: 4000, fewInFlight: 16, some: 5000, lots: 100_000,
	many: manyGroups{users: 2000, idle: 20_000, burst: 15_000, rate: 2000},
}

// tiny runs every scenario in seconds.
var tiny = sizes{
	groups: 5, groupSize: 4, rate: 100, ackRates: []int{50, 100},
	room: 20, roomWindow: 16, roomRate: 20,
	idle: 100, idleGroup: 10, idleRest: 200 * time.Millisecond,
	back: 20, missed: 20, long: 300,
	failGroups: 5, failRate: 50, failAfter: 2500 * time.Millisecond,
	fastRate: 200, fewInFlight: 4, some: 50, lots: 200,
	many: manyGroups{users: 20, idle: 50, burst: 40, rate: 200},
}

// The default numbers of runs and of rounds of a comparison. With 5 rounds, the ranges of two equal builds do not overlap
// in one row of 126. With 3 rounds, in one row of 10.
const (
	defaultRuns   = 3
	defaultRounds = 5
)

func (c Config) complete() (Config, sizes, error) {
	for _, number := range c.Only {
		if !slices.ContainsFunc(scenarios, func(s scenario) bool { return s.number == number }) {
			return c, full, fmt.Errorf("--only: there is no scenario %d; they are 1 to %d", number, scenarios[len(scenarios)-1].number)
		}
	}
	if c.Compare != (len(c.Builds) > 0) || len(c.Builds) == 1 {
		return c, full, errors.New("--compare needs two or more builds, and builds need --compare")
	}
	if c.Runs == 0 {
		c.Runs = defaultRuns
		if c.Compare {
			c.Runs = defaultRounds
		}
	}
	if c.Runs < 1 || c.Window < 100*time.Millisecond {
		return c, full, errors.New("--runs must be at least 1, --window at least 100ms")
	}
	switch {
	case c.Smoke:
		c.Runs, c.Window, c.Warmup = 1, 300*time.Millisecond, 100*time.Millisecond
		return c, tiny, nil
	case c.Quick:
		c.Runs, c.Window, c.Warmup = 1, min(c.Window, 4*time.Second), min(c.Warmup, time.Second)
	}
	return c, full, nil
}
