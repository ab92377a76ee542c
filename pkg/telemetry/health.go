package telemetry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Check reports whether a dependency of the service is available. It must return when its context ends. An error makes
// the service unready, unless the error was made by Degraded.
type Check = func(ctx context.Context) error

// Degraded marks the error of a check: the service stays ready, with reduced function. /readyz reports the error and
// answers 200. Use it for a dependency that all instances share and that the service can miss for a while. If its outage
// made every instance unready, a load balancer would disconnect all clients at once.
func Degraded(err error) error {
	if err == nil {
		return nil
	}
	return &degradedError{err}
}

type degradedError struct{ cause error }

func (e *degradedError) Error() string { return e.cause.Error() }
func (e *degradedError) Unwrap() error { return e.cause }

// CheckState is the result of a check.
type CheckState string

// The results of a check.
const (
	CheckPassed   CheckState = "ok"
	CheckDegraded CheckState = "degraded" // the check failed, but the service stays ready: see Degraded
	CheckFailed   CheckState = "failed"
)

// CheckResult is the result of one readiness check.
type CheckResult struct {
	Name  string
	State CheckState
	// Reason is why the check failed. It may contain hosts and addresses, so only operators may see it.
	Reason string
	// Since is when a check first had the present result without interruption. It is only as exact as the interval
	// between two runs of the checks.
	Since time.Time
}

// Health reports whether the service can do its work, and if not, which checks failed.
type Health struct {
	// Ready is true if no check failed and the service is not being stopped.
	Ready bool
	// Draining is true while the service is being stopped.
	Draining bool
	// Degraded is true if a check reports reduced function.
	Degraded bool
	// Checks are the results, sorted by name.
	Checks []CheckResult
}

// state is the last result of a check.
type state struct {
	is    CheckState
	since time.Time
}

const (
	// checkTimeout is the time limit of one readiness check. Orchestrators rarely wait longer for the whole answer.
	checkTimeout = 3 * time.Second
	// checkInterval is how often the checks run without a request, so that metrics and the times of changes do not depend
	// on probes.
	checkInterval = 5 * time.Second
	// checkReuse is how long results are reused. Anyone may request them, and checks write to disks and call other
	// services.
	checkReuse = 250 * time.Millisecond
)

// Health runs the checks concurrently, for at most 3 s. It joins a run in progress, and reuses results that are less than
// a quarter of a second old.
func (a *Admin) Health() Health {
	results, _, _ := a.checking.Do("", func() (any, error) {
		if time.Since(a.checked) >= checkReuse {
			a.results = a.runChecks()
			a.checked = time.Now()
		}
		return a.results, nil
	})
	health := Health{Draining: a.draining.Load()}
	health.Checks, _ = results.([]CheckResult) // always this type
	health.Ready = !health.Draining
	for _, result := range health.Checks {
		health.Degraded = health.Degraded || result.State == CheckDegraded
		health.Ready = health.Ready && result.State != CheckFailed
	}
	return health
}

// watch runs the checks every few seconds until ctx ends.
func (a *Admin) watch(ctx context.Context) {
	ticker := time.NewTicker(checkInterval)
	defer ticker.Stop()
	for {
		a.Health()
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// errNoAnswer is the result of a check that does not end with its context. The check is not started again while it runs.
var errNoAnswer = fmt.Errorf("no answer within %v", checkTimeout)

// runChecks runs the checks concurrently. A slow check must not hide a failed check, and a check that hangs must not
// delay the answer.
func (a *Admin) runChecks() []CheckResult {
	a.mu.Lock()
	running := a.running
	a.mu.Unlock()
	ctx, cancel := context.WithTimeout(running, checkTimeout)
	defer cancel()
	type outcome struct {
		name string
		err  error
	}
	outcomes := make(chan outcome, len(a.checks)) // has room for all results, so that no check waits for the reader
	waiting := map[string]bool{}
	results := make([]CheckResult, 0, len(a.checks))
	for name, check := range a.checks {
		if !a.begin(name) {
			results = append(results, a.resultOf(name, errNoAnswer))
			continue
		}
		waiting[name] = true
		go func() {
			err := check(ctx)
			a.end(name)
			outcomes <- outcome{name, err}
		}()
	}
	late := time.NewTimer(checkTimeout + checkReuse) // gives checks a moment to return the error of their context
	defer late.Stop()
	for len(waiting) > 0 {
		select {
		case o := <-outcomes:
			delete(waiting, o.name)
			results = append(results, a.resultOf(o.name, o.err))
		case <-late.C:
			for name := range waiting {
				results = append(results, a.resultOf(name, errNoAnswer))
			}
			clear(waiting)
		}
	}
	slices.SortFunc(results, func(x, y CheckResult) int { return strings.Compare(x.Name, y.Name) })
	return results
}

// begin reports whether a check may start; false if it is still running.
func (a *Admin) begin(name string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.busy[name] {
		return false
	}
	a.busy[name] = true
	return true
}

func (a *Admin) end(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.busy, name)
}

// resultOf makes the result of a check from its error, and records since when the check has this result.
func (a *Admin) resultOf(name string, err error) CheckResult {
	result := CheckResult{Name: name, State: CheckPassed}
	var degraded *degradedError
	switch {
	case errors.As(err, &degraded):
		result.State, result.Reason = CheckDegraded, err.Error()
	case err != nil:
		result.State, result.Reason = CheckFailed, err.Error()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.states[name].is != result.State {
		a.states[name] = state{result.State, time.Now()}
	}
	result.Since = a.states[name].since
	a.gauges.set(result)
	return result
}

// readiness is the answer of /readyz.
type readiness struct {
	Ready    bool              `json:"ready"`
	Draining bool              `json:"draining"`
	Degraded bool              `json:"degraded,omitempty"` // a check failed, but the service stays ready
	Checks   map[string]string `json:"checks"`             // name → "ok", what is wrong, or "degraded: " and what is wrong
}

// ready answers /readyz. Only operators get the reasons.
func (a *Admin) ready(w http.ResponseWriter, r *http.Request) {
	health := a.Health()
	answer := readiness{Ready: health.Ready, Draining: health.Draining, Degraded: health.Degraded, Checks: map[string]string{}}
	operator := a.guard.lets(r)
	for _, result := range health.Checks {
		answer.Checks[result.Name] = string(result.State)
		switch {
		case !operator:
		case result.State == CheckDegraded:
			answer.Checks[result.Name] = "degraded: " + result.Reason
		case result.State == CheckFailed:
			answer.Checks[result.Name] = result.Reason
		}
	}
	body, err := json.Marshal(answer)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if !answer.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = w.Write(append(body, '\n'))
}
