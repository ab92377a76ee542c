package torture

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/runnelhq/runnel/services/e2e/launch"
)

// healTime is how long a database may take to recover by itself after space was freed. A PostgreSQL server that has ended
// is started again.
const healTime = 5 * time.Second

// fill fills a volume, and then frees it. A NATS server that has met a full disk stays unavailable until it is restarted.
func (i *injector) fill(ctx, restart context.Context, fault Fault) (time.Time, error) {
	v := i.volumes[fault.Part]
	if v == nil {
		return time.Now(), fmt.Errorf("%s has no volume", fault.Part)
	}
	if err := v.fill(); err != nil {
		return time.Now(), fmt.Errorf("fill the volume of %s: %w", fault.Part, err)
	}
	_ = launch.Sleep(ctx, fault.For)
	if err := v.free(); err != nil {
		return time.Now(), fmt.Errorf("free the volume of %s: %w", fault.Part, err)
	}
	ended := time.Now()
	part := i.part(fault.Part)
	if part == nil {
		return ended, nil // SQLite is not a process; its history service must continue by itself
	}
	if strings.HasPrefix(fault.Part, "nats") || !i.heals(restart) {
		part.Kill()
		return ended, i.again(restart, part)
	}
	return ended, nil
}

// heals reports whether the database answers within healTime.
func (i *injector) heals(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, healTime)
	defer cancel()
	for {
		if _, _, err := i.database.Heads(ctx); err == nil {
			return true
		}
		if launch.Sleep(ctx, 50*time.Millisecond) != nil {
			return false
		}
	}
}

// power simulates a power loss for the volumes of NATS, of the database, or of both. The affected processes end, and all
// are started again. All commands acknowledged as committed before must then be in the database, in an unbroken chain,
// before any service can repair it.
func (i *injector) power(restart context.Context, fault Fault) (time.Time, error) {
	before := i.record.History()
	var victims []launch.Part
	var dark []*volume
	for name, v := range i.volumes {
		if nats := strings.HasPrefix(name, "nats"); fault.Part == everything || nats == (fault.Part == "nats") {
			dark = append(dark, v)
			if err := v.losePower(); err != nil {
				return time.Now(), err
			}
		}
	}
	for _, part := range i.suite.Parts() {
		kind, _, _ := strings.Cut(part.Name(), "-")
		switch {
		case fault.Part == everything, fault.Part == kind, fault.Part == "database" && (kind == "postgres" || kind == "history"):
			part.Kill()
			victims = append(victims, part)
		}
	}
	// No other process may open the database before the history service has recovered it.
	if err := i.database.Away(); err != nil {
		return time.Now(), err
	}
	defer i.database.Back()
	for _, v := range dark {
		if err := errors.Join(v.unmount(), v.mount()); err != nil {
			return time.Now(), fmt.Errorf("bring a volume back: %w", err)
		}
	}
	ended := time.Now()
	if err := i.stepwise(restart, victims, "postgres", "nats", "history"); err != nil {
		return ended, err
	}
	i.database.Back()
	if fault.Part != "nats" {
		i.survived(restart, before)
	}
	return ended, i.stepwise(restart, victims, "delivery", "gateway")
}

// stepwise restarts parts: one kind after another, all parts of a kind at once.
func (i *injector) stepwise(ctx context.Context, parts []launch.Part, kinds ...string) error {
	for _, kind := range kinds {
		group, ctx := errgroup.WithContext(ctx)
		for _, part := range parts {
			if of, _, _ := strings.Cut(part.Name(), "-"); of == kind {
				i.versions.choose(part)
				group.Go(func() error { return part.Restart(ctx) })
			}
		}
		if err := group.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// survived checks that all commands acknowledged before a power loss are still stored.
func (i *injector) survived(ctx context.Context, before History) {
	content, err := i.database.Content(ctx)
	if err != nil {
		i.record.Violated(violation("power", "the database cannot be read after a loss of power: %v", err))
		return
	}
	lost := CheckSurvival(before, content)
	i.record.Violated(lost...)
	if len(lost) > 0 {
		return
	}
	acknowledged := 0
	for _, answer := range before.Answers {
		if answer.Seq > 0 {
			acknowledged++
		}
	}
	i.count(func(c *Counts) { c.Powerless++; c.Survived += acknowledged })
}
