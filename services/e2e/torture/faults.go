package torture

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/runnelhq/runnel/services/e2e/launch"
)

// FaultKind is what is done to a part.
type FaultKind string

// The faults.
const (
	// FaultKill is SIGKILL; the part is started again after For.
	FaultKill FaultKind = "kill"
	// FaultStop is SIGTERM, waited for; the part is started again at once.
	FaultStop FaultKind = "stop"
	// FaultPause is SIGSTOP, and SIGCONT after For.
	FaultPause FaultKind = "pause"
	// FaultWipe is SIGKILL and the loss of all that the part kept: only for NATS, whose streams are then made anew.
	FaultWipe FaultKind = "wipe"
)

// Fault is one thing that goes wrong.
type Fault struct {
	At   time.Duration
	Kind FaultKind
	Part string
	For  time.Duration
}

func (f Fault) String() string {
	if f.Kind == FaultStop {
		return fmt.Sprintf("%s %s", f.Kind, f.Part)
	}
	return fmt.Sprintf("%s %s for %v", f.Kind, f.Part, f.For.Round(10*time.Millisecond))
}

// name leaves out which of several parts it was.
func (f Fault) name() string {
	kind, _, _ := strings.Cut(f.Part, "-")
	return string(f.Kind) + " " + kind
}

// Bounds of a schedule.
const (
	maxDown      = 2 // parts that are down or paused at a time
	firstFault   = 3 * time.Second
	maxPause     = 6 * time.Second
	maxDowntime  = 2 * time.Second
	restartGuess = 1500 * time.Millisecond // until a part that is started again is taken to work
)

// Schedule draws faults from a source of random numbers, by rising time. The first ones are always the same scenarios, each of which a
// planted bug cannot survive: a paused store (acks must not run ahead), a paused worker that comes back as a zombie, a
// killed gateway and a killed worker.
func Schedule(random *rand.Rand, parts []string, duration time.Duration, wipe bool) []Fault {
	var faults []Fault
	at := firstFault
	for _, fixed := range []Fault{
		{Kind: FaultPause, Part: "history-0", For: 2500 * time.Millisecond},
		{Kind: FaultPause, Part: "delivery-0", For: 4 * time.Second},
		{Kind: FaultKill, Part: "gateway-0", For: time.Second},
		{Kind: FaultKill, Part: "delivery-1", For: time.Second},
	} {
		if slices.Contains(parts, fixed.Part) && at+fixed.For < duration {
			fixed.At = at
			faults = append(faults, fixed)
			at += fixed.For + 700*time.Millisecond
		}
	}
	for at < duration {
		f := Fault{At: at, Part: parts[random.IntN(len(parts))]}
		switch n := random.IntN(10); {
		case n < 4:
			f.Kind, f.For = FaultKill, time.Duration(random.Int64N(int64(maxDowntime)))
		case n < 8:
			f.Kind, f.For = FaultPause, 300*time.Millisecond+time.Duration(random.Int64N(int64(maxPause-300*time.Millisecond)))
		default:
			f.Kind = FaultStop
		}
		if wipe && f.Kind == FaultKill && f.Part == "nats-0" && random.IntN(2) == 0 {
			f.Kind = FaultWipe
		}
		if f.At+f.For < duration && fits(faults, f) {
			faults = append(faults, f)
		}
		at += 300*time.Millisecond + time.Duration(random.Int64N(int64(2500*time.Millisecond)))
	}
	return faults
}

// fits reports whether a fault leaves enough parts up, and its own part was up before.
func fits(faults []Fault, f Fault) bool {
	down := 0
	for _, other := range faults {
		if other.At+other.For+restartGuess > f.At {
			if other.Part == f.Part {
				return false
			}
			down++
		}
	}
	return down < maxDown
}

// injector carries out a schedule.
type injector struct {
	suite  *launch.Suite
	record *Record
	// before is told of each fault before it happens.
	before func(Fault)
	// after is told of each fault when the part works again, and how long that took from the end of the fault.
	after func(Fault, time.Duration)
	// restart bounds the time until a part works again.
	restart time.Duration
}

// run carries out faults at their times after begun, and returns when every part works again. When ctx ends no further fault begins.
func (i *injector) run(ctx context.Context, begun time.Time, faults []Fault) {
	parts := map[string]launch.Part{}
	for _, part := range i.suite.Parts() {
		parts[part.Name()] = part
	}
	var going sync.WaitGroup
	defer going.Wait()
	busy := map[string]chan struct{}{} // by part, closed when its last fault is over
	down := make(chan struct{}, maxDown)
	for _, fault := range faults {
		part := parts[fault.Part]
		select {
		case <-time.After(time.Until(begun.Add(fault.At))):
		case <-ctx.Done():
			return
		}
		// A restart may take longer than was guessed; then the next fault waits.
		if last := busy[fault.Part]; last != nil {
			<-last
		}
		down <- struct{}{}
		over := make(chan struct{})
		busy[fault.Part] = over
		going.Go(func() {
			defer close(over)
			defer func() { <-down }()
			i.inflict(ctx, part, fault)
		})
	}
}

func (i *injector) inflict(ctx context.Context, part launch.Part, fault Fault) {
	i.before(fault)
	begun := time.Now()
	wait := func() {
		select {
		case <-time.After(fault.For):
		case <-ctx.Done():
		}
	}
	restart, cancel := context.WithTimeout(context.WithoutCancel(ctx), i.restart)
	defer cancel()
	ended := begun
	var err error
	switch fault.Kind {
	case FaultPause:
		part.Pause()
		wait()
		part.Resume()
		ended = time.Now()
	case FaultStop:
		if err = part.Stop(); err != nil {
			i.record.Violated(violation("clean stop", "%v", err))
		}
		ended = time.Now()
		err = part.Restart(restart)
	case FaultWipe, FaultKill:
		part.Kill()
		if process, ok := part.(*launch.Process); ok && fault.Kind == FaultWipe {
			err = os.RemoveAll(process.Data)
		}
		wait()
		ended = time.Now()
		if err == nil {
			err = part.Restart(restart)
		}
	}
	if err != nil {
		i.record.Violated(violation("I9", "%s does not come back: %v", fault.Part, err))
	}
	i.record.Fault(fault.name(), begun, time.Now())
	i.after(fault, time.Since(ended))
}
