package messagepath

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/runnelhq/runnel/services/e2e/bench/load"
)

// Config selects how much is measured.
type Config struct {
	Messages int    `help:"Messages of each round." default:"1000"`
	Rounds   int    `help:"Number of rounds, from which medians and ranges are computed." default:"3"`
	Rate     int    `help:"Messages per second. At a low rate no two messages share a commit or a network write." default:"200"`
	Detail   int    `help:"Also print this many of the most frequent wake-ups, system calls and allocations, by function." default:"0"`
	JSON     string `name:"json" help:"Write the counts to this file." type:"path" placeholder:"FILE"`
	Write    bool   `help:"Write the table of services/e2e/bench/README.md."`
}

// groupSize is the number of members of each group. There is a group for every two messages a second: then acknowledgements, which
// clients hold back for 200 ms, are never of two messages.
const groupSize = 4

// Measure counts what a message costs in standalone, and prints progress on out.
func Measure(ctx context.Context, cfg Config, out io.Writer) (_ *Table, err error) {
	if cfg.Messages < 1 || cfg.Rounds < 1 || cfg.Rate < 1 {
		return nil, errors.New("--messages, --rounds and --rate must be at least 1")
	}
	groups := (cfg.Rate + 1) / 2
	profileEverything()
	s, err := begin(ctx, groups, groupSize)
	if err != nil {
		return nil, err
	}
	defer func() {
		if failed := s.end(); err == nil {
			err = failed
		}
	}()
	fmt.Fprintf(out, "%d groups of %d are connected\n", groups, groupSize)
	sent := 0
	talk := func(messages int) error {
		sending, stop := context.WithCancel(ctx)
		defer stop()
		_, err := load.Pace(sending, cfg.Rate, func(i int) error {
			if i == messages-1 {
				stop()
			}
			sent++
			return s.send(ctx, sent%groups, sent/groups%groupSize)
		})
		if err != nil {
			return err
		}
		return s.settle(ctx)
	}
	everybody, measured := func() error { return talk(groups) }, func() error { return talk(cfg.Messages) }
	if err := measured(); err != nil { // caches, pools and lazily started goroutines
		return nil, fmt.Errorf("warm up: %w", err)
	}
	table := newTable(cfg)
	for round := range cfg.Rounds {
		seen, err := traced(everybody, measured)
		if err != nil {
			return nil, err
		}
		before, err := s.trafficNow()
		if err != nil {
			return nil, err
		}
		made, err := allocated(measured)
		if err != nil {
			return nil, err
		}
		after, err := s.trafficNow()
		if err != nil {
			return nil, err
		}
		table.add(seen, made, after.minus(before))
		fmt.Fprintf(out, "round %d of %d is done\n", round+1, cfg.Rounds)
	}
	return table, nil
}
