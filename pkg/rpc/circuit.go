package rpc

import (
	"log/slog"
	"sync"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// circuit decides whether a method may be called.
//
//	closed ──half of the calls failed──▶ open ──pause──▶ half open: one call tries
//	  ▲                                   ▲                  │ failed, or takes long │ succeeded
//	  │                                   └──────────────────┘                       │
//	  └──────────────────────────────────────────────────────────────────────────────┘
type circuit struct {
	mu      sync.Mutex // held around everything in breaker that changes the state, so that a state is consistent with the calls that it admits
	breaker circuitbreaker.CircuitBreaker[any]
	changes uint64    // number of changes of the state
	asked   time.Time // when a call was last requested while the circuit was not closed
}

// attempt is an admitted call.
type attempt struct {
	began uint64 // number of state changes when the call began; if the state changed since, the result says nothing about the present state
	tries bool   // this call probes whether the service has recovered
}

func newCircuit(log *slog.Logger) *circuit {
	c := &circuit{}
	c.breaker = circuitbreaker.NewBuilder[any]().
		WithFailureRateThreshold(breakerShare, breakerLeast, breakerWindow).
		WithSuccessThreshold(1).
		WithDelay(breakerPause).
		OnStateChanged(func(event circuitbreaker.StateChangedEvent) {
			switch event.NewState { // requires mu
			case circuitbreaker.OpenState:
				c.asked = time.Now()
				log.Warn("a service fails too often; calls are paused for a moment")
			case circuitbreaker.ClosedState:
				log.Info("calls of a service are no longer paused")
			case circuitbreaker.HalfOpenState:
				log.Debug("trying a service again")
			}
			c.changes++
		}).Build()
	return c
}

// admit reports whether a call may be made. The outcome of an admitted call must be passed to ended.
func (c *circuit) admit() (attempt, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	admitted := c.breaker.TryAcquirePermit()
	tries := c.breaker.IsHalfOpen()
	if !admitted || tries {
		c.asked = time.Now()
	}
	return attempt{c.changes, tries}, admitted
}

// ended records the outcome of a call. If there are several outcomes for one call, the first one counts. If the service
// answers a slow probe later, that answer counts too.
func (c *circuit) ended(call attempt, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.changes != call.began:
		if call.tries && !isFailure(err) && !isCanceled(err) {
			c.breaker.Close() // the service is slow, but not down
		}
	case isFailure(err):
		c.breaker.RecordFailure()
	case !isCanceled(err):
		c.breaker.RecordSuccess()
	case call.tries: // the caller cancelled, which proves nothing; another probe is needed
		c.breaker.RecordFailure()
	}
}

func (c *circuit) isOpen() bool { return c.breaker.IsOpen() }

// state returns the state for operators. A method that failed and was not called since is not reported as a problem.
func (c *circuit) state() circuitbreaker.State {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.breaker.IsOpen() && time.Since(c.asked) > breakerWindow {
		return circuitbreaker.ClosedState
	}
	return c.breaker.State()
}

// isFailure reports whether an error means that the service is down, hangs or is overloaded. All other errors are answers
// of the service.
func isFailure(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded:
		return true
	default:
		return false
	}
}

func isCanceled(err error) bool { return status.Code(err) == codes.Canceled }
