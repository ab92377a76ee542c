package torture

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/runnelhq/runnel/services/e2e/launch"
)

// injector carries out faults.
type injector struct {
	suite    *launch.Suite
	record   *Record
	database *Database
	volumes  volumes
	slow     *slowReader // nil when there is none
	versions *versions   // nil when all parts stay what they are
	// before is called before each fault.
	before func(Fault)
	// after is called with each fault when everything that it affected works again, and how long that took from the end of
	// the fault.
	after func(Fault, time.Duration)
	// restart bounds the time until a part works again.
	restart time.Duration
	// shown means that each fault must have its intended effect: the refusal of a zombie's commit, the end of a slow
	// connection. With several faults at a time, one may hide another.
	shown bool

	claimed claims
	mu      sync.Mutex
	counts  Counts
}

// Counts count the effects of faults.
type Counts struct {
	// Zombies is the number of batches of paused workers that were refused when they continued.
	Zombies int `json:"zombie_commits_refused"`
	// Slow are connections that were closed because their client did not read; SlowTold those whose client read the code that says so.
	Slow     int `json:"slow_connections_closed"`
	SlowTold int `json:"slow_connections_told"`
	// Cut are connections that were reset in the network.
	Cut int `json:"connections_cut"`
	// Powerless are losses of power; Survived is how many commands had been acknowledged by then and were all there again.
	Powerless int `json:"power_losses"`
	Survived  int `json:"acknowledged_before_power_losses"`
}

func (i *injector) count(add func(*Counts)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	add(&i.counts)
}

// Counts are those so far.
func (i *injector) Counts() Counts {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.counts
}

// run carries out faults at their times after begun, and returns when every part works again. After the end of ctx no
// further fault begins.
func (i *injector) run(ctx context.Context, begun time.Time, faults []Fault) {
	var going sync.WaitGroup
	defer going.Wait()
	down := make(chan struct{}, maxDown)
	for _, fault := range faults {
		if launch.Sleep(ctx, time.Until(begun.Add(fault.At))) != nil {
			return
		}
		// A restart may take longer than was guessed; then the next fault waits.
		release, err := i.claimed.take(ctx, fault.claims())
		if err != nil {
			return
		}
		down <- struct{}{}
		going.Go(func() {
			defer release()
			defer func() { <-down }()
			i.inflict(ctx, fault)
		})
	}
}

// lane carries out faults one after another, each after a pause and as soon as no other fault affects the same parts, until
// next has no more or ctx ends.
func (i *injector) lane(ctx context.Context, rest func() time.Duration, next func() (Fault, bool)) {
	for {
		fault, more := next()
		if !more || launch.Sleep(ctx, rest()) != nil {
			return
		}
		release, err := i.claimed.take(ctx, fault.claims())
		if err != nil {
			return
		}
		i.inflict(ctx, fault)
		release()
	}
}

// inflict carries out one fault, and returns when everything that it affected works again, or cannot be recovered.
func (i *injector) inflict(ctx context.Context, fault Fault) {
	i.before(fault)
	begun := time.Now()
	restart, cancel := context.WithTimeout(context.WithoutCancel(ctx), i.restart)
	defer cancel()
	ended, err := i.carryOut(ctx, restart, fault)
	if err != nil {
		i.record.Violated(violation("I9", "%s: it does not come back: %v", fault, err))
	}
	i.record.Fault(fault.name(), begun, time.Now())
	i.after(fault, time.Since(ended))
}

// carryOut carries out the action of a fault. Its wait ends early with ctx; stopped parts are restarted with restart, even
// after the end of ctx. It returns the time at which the fault itself was over.
func (i *injector) carryOut(ctx, restart context.Context, fault Fault) (ended time.Time, err error) {
	switch fault.Kind {
	case FaultNetwork:
		return i.network(ctx, fault)
	case FaultStorm:
		return i.storm(restart, fault)
	case FaultRoll:
		return i.roll(restart, fault)
	case FaultLeader:
		return i.leader(ctx, restart, fault)
	case FaultSlow:
		return i.slow.meet(ctx, i)
	case FaultFull:
		return i.fill(ctx, restart, fault)
	case FaultPower:
		return i.power(restart, fault)
	default:
	}
	part := i.part(fault.Part)
	switch fault.Kind {
	case FaultPause:
		part.Pause()
		_ = launch.Sleep(ctx, fault.For)
		part.Resume()
		return time.Now(), nil
	case FaultZombie:
		return i.zombie(ctx, part, fault)
	case FaultStop:
		i.clean(part.Stop())
	case FaultLameDuck:
		process, _ := part.(*launch.Process)
		i.clean(launch.LameDuck(process))
	case FaultWipe, FaultKill:
		part.Kill()
		if process, ok := part.(*launch.Process); ok && fault.Kind == FaultWipe {
			if err := os.RemoveAll(process.Data); err != nil {
				return time.Now(), err
			}
		}
		_ = launch.Sleep(ctx, fault.For)
	default:
		return time.Now(), fmt.Errorf("there is no fault %q", fault.Kind)
	}
	ended = time.Now()
	return ended, i.again(restart, part)
}

// again starts a part, and waits until a NATS server has caught up: the next fault must not affect the only server with
// data that this one lacks.
func (i *injector) again(ctx context.Context, part launch.Part) error {
	if err := i.versions.restart(ctx, part); err != nil {
		return err
	}
	if strings.HasPrefix(part.Name(), "nats") && len(i.suite.NATS) > 1 {
		return i.suite.AwaitNATS(ctx)
	}
	return nil
}

// clean checks that a part ends cleanly when it is asked to.
func (i *injector) clean(err error) {
	if err != nil {
		i.record.Violated(violation("clean stop", "%v", err))
	}
}

// part returns the part with a name; nil if there is none.
func (i *injector) part(name string) launch.Part {
	for _, part := range i.suite.Parts() {
		if part.Name() == name {
			return part
		}
	}
	return nil
}

// parts finds all of a kind.
func (i *injector) parts(kind string) []launch.Part {
	return slices.DeleteFunc(i.suite.Parts(), func(p launch.Part) bool {
		of, _, _ := strings.Cut(p.Name(), "-")
		return of != kind
	})
}

// over reports whether the time is up.
func over(ctx context.Context) bool { return ctx.Err() != nil }

// claims prevent concurrent faults that would affect the same part.
type claims struct {
	mu      sync.Mutex
	held    []string
	changed chan struct{} // closed when something is released; nil while nobody waits
}

// take waits until no other fault claims any of the parts, and claims them until release.
func (c *claims) take(ctx context.Context, wanted []string) (release func(), err error) {
	for {
		c.mu.Lock()
		if !slices.ContainsFunc(wanted, func(w string) bool { return slices.ContainsFunc(c.held, func(h string) bool { return overlap(w, h) }) }) {
			c.held = append(c.held, wanted...)
			c.mu.Unlock()
			return func() { c.release(wanted) }, nil
		}
		if c.changed == nil {
			c.changed = make(chan struct{})
		}
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (c *claims) release(names []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range names {
		at := slices.Index(c.held, name)
		c.held = slices.Delete(c.held, at, at+1)
	}
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}

// overlap reports whether two names of parts or kinds of parts have something in common.
func overlap(a, b string) bool {
	kindA, _, oneA := strings.Cut(a, "-")
	kindB, _, oneB := strings.Cut(b, "-")
	return a == everything || b == everything || (kindA == kindB && (a == b || !oneA || !oneB))
}
