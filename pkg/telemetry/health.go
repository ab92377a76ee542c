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

// Check reports whether something that the service needs is available. It must return when its context ends. An error makes the
// service not ready, unless it is made by Degraded.
type Check = func(ctx context.Context) error

// Degraded marks the error of a check as one that leaves the service ready: it goes on with less. /readyz reports it and
// answers 200. Use it for a dependency that all instances share and that the service can run without for a while: if its outage
// made every instance not ready, a load balancer would cut off all clients at once.
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
	CheckDegraded CheckState = "degraded" // failed, and does not make the service unready: see Degraded
	CheckFailed   CheckState = "failed"
)

// CheckResult is what one readiness check found.
type CheckResult struct {
	Name  string
	State CheckState
	// Reason is why the check did not pass. It may name hosts and addresses, so it is for operators only.
	Reason string
	// Since is when a check first found this state without another one in between. Nobody may have checked before that for
	// a while: the time is as exact as the interval of probes.
	Since time.Time
}

// Health reports whether the service can do its work, and what is missing if it cannot.
type Health struct {
	// Ready is true if no check failed and the service is not being stopped.
	Ready bool
	// Draining is true while the service is being stopped.
	Draining bool
	// Degraded is true if a check reports less than full service.
	Degraded bool
	// Checks holds the results, by name.
	Checks []CheckResult
}

// state is the last result of a check.
type state struct {
	is    CheckState
	since time.Time
}

const (
	// checkTimeout is how long one readiness check may take. Orchestrators rarely wait longer for the whole answer.
	checkTimeout = 3 * time.Second
	// checkInterval is how often the checks run although nobody asks: metrics and the times of changes do not depend on probes.
	checkInterval = 5 * time.Second
	// checkReuse is how long results are used again. Anybody may ask, and checks write to disks and call other services.
	checkReuse = 250 * time.Millisecond
)

// Health runs the checks, side by side and for 3 s at most. It joins a run that is in progress, and uses results again that are
// less than a quarter of a second old.
func (a *Admin) Health() Health {
	results, _, _ := a.checking.Do("", func() (any, error) {
		if time.Since(a.checked) >= checkReuse {
			a.results = a.runChecks()
			a.checked = time.Now()
		}
		return a.results, nil
	})
	health := Health{Draining: a.draining.Load()}
	health.Checks, _ = results.([]CheckResult) // it always is one
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

// errNoAnswer is the result of a check that does not end with its context. It is not started again while it runs.
var errNoAnswer = fmt.Errorf("no answer within %v", checkTimeout)

// runChecks runs the checks side by side: a slow one must not hide a failed one, and one that hangs must not hold up the answer.
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
	outcomes := make(chan outcome, len(a.checks)) // no check waits for a reader
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
	late := time.NewTimer(checkTimeout + checkReuse) // a check gets a moment to return the error of its context
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

// begin reports whether a check may start: false while it still runs.
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

// resultOf turns the error of a check into its result, and remembers since when it is so.
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
	Degraded bool              `json:"degraded,omitempty"` // a check failed that does not count against Ready
	Checks   map[string]string `json:"checks"`             // name → "ok", what is wrong, or "degraded: " and what is wrong
}

// ready answers /readyz. Only operators get reasons.
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
