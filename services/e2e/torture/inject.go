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
	slow     *slowReader // nil if there is none
	versions *versions   // nil if no part changes its version
	// before is called before each fault.
	before func(Fault)
	// after is called when every part that a fault affected works again, with the time since the end of the fault.
	after func(Fault, time.Duration)
	// restart is the time limit for a part to work again.
	restart time.Duration
	// shown means that each fault must have its intended effect: a zombie's commit is refused, a slow connection is
	// closed. If several faults occur at a time, one may hide the effect of another, so shown is false.
	shown bool

	claimed claims
	mu      sync.Mutex
	counts  Counts
}

// Counts counts the effects of faults.
type Counts struct {
	// Zombies is the number of batches that paused workers sent when they continued, and that were refused.
	Zombies int `json:"zombie_commits_refused"`
	// Slow is the number of connections that were closed because their client did not read. SlowTold is the number of
	// these connections whose client read the close code.
	Slow     int `json:"slow_connections_closed"`
	SlowTold int `json:"slow_connections_told"`
	// Cut is the number of connections that were reset in the network.
	Cut int `json:"connections_cut"`
	// Powerless is the number of power losses. Survived is the number of commands that had been acknowledged before a
	// power loss and were still stored after it.
	Powerless int `json:"power_losses"`
	Survived  int `json:"acknowledged_before_power_losses"`
}

func (i *injector) count(add func(*Counts)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	add(&i.counts)
}

// Counts returns the counts so far.
func (i *injector) Counts() Counts {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.counts
}

// run carries out each fault at its time after begun, and returns when every part works again. After ctx has ended, no
// further fault begins.
func (i *injector) run(ctx context.Context, begun time.Time, faults []Fault) {
	var going sync.WaitGroup
	defer going.Wait()
	down := make(chan struct{}, maxDown)
	for _, fault := range faults {
		if launch.Sleep(ctx, time.Until(begun.Add(fault.At))) != nil {
			return
		}
		// A restart may take longer than assumed; then the next fault waits.
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

// lane carries out faults one after another until next returns no more or ctx ends. Before each fault it pauses, and
// waits until no other fault affects the same parts.
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

// inflict carries out one fault. It returns when all affected parts work again, or cannot be recovered.
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

// carryOut carries out the action of a fault. Its wait ends early with ctx. Stopped parts are restarted with the context
// restart, even after ctx has ended. It returns the time at which the fault itself ended.
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

// again starts a part, and waits until a NATS server has caught up: the next fault must not affect the only server that
// has data which this one lacks.
func (i *injector) again(ctx context.Context, part launch.Part) error {
	if err := i.versions.restart(ctx, part); err != nil {
		return err
	}
	if strings.HasPrefix(part.Name(), "nats") && len(i.suite.NATS) > 1 {
		return i.suite.AwaitNATS(ctx)
	}
	return nil
}

// clean checks that a stopped part ended without an error.
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

// parts returns all parts of a kind.
func (i *injector) parts(kind string) []launch.Part {
	return slices.DeleteFunc(i.suite.Parts(), func(p launch.Part) bool {
		of, _, _ := strings.Cut(p.Name(), "-")
		return of != kind
	})
}

// over reports whether ctx has ended.
func over(ctx context.Context) bool { return ctx.Err() != nil }

// claims prevents concurrent faults that would affect the same part.
type claims struct {
	mu      sync.Mutex
	held    []string
	changed chan struct{} // closed when claims are released; nil while nobody waits
}

// take waits until no other fault claims any of the wanted parts, and claims them until release is called.
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

// overlap reports whether two names of parts, or of kinds of parts, have a part in common.
func overlap(a, b string) bool {
	kindA, _, oneA := strings.Cut(a, "-")
	kindB, _, oneB := strings.Cut(b, "-")
	return a == everything || b == everything || (kindA == kindB && (a == b || !oneA || !oneB))
}
