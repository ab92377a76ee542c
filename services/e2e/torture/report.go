package torture

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// Report is the verdict of one run, and what it was based on.
type Report struct {
	Seed      uint64 `json:"seed"`
	Store     string `json:"store"`
	NATSNodes int    `json:"nats_nodes"`
	Dir       string `json:"dir"`

	Seconds   float64 `json:"seconds"`
	Sent      int     `json:"sent"`
	Committed int     `json:"committed"`
	Refused   int     `json:"refused"`
	Shown     int     `json:"shown"`
	Events    int     `json:"events_stored"`
	Logs      int     `json:"conversations"`
	Repeats   int     `json:"repeats"`
	// Masked are conflicting repetitions that got the first outcome from a new owner instead of being refused.
	Masked int `json:"masked_conflicts"`
	// Overtaken are commands that were refused near a fault and carried out later, when another copy of them arrived.
	Overtaken int `json:"overtaken_refusals"`
	// Looks into the database at the moment of a sighting, and how many of them waited for the database.
	Looks     int `json:"looks"`
	LateLooks int `json:"late_looks"`
	// Rewinds are losses of the broker that workers noticed.
	Rewinds int `json:"rewinds"`

	// Faults by what was done to what; Waits is the longest that a command given within the first second of one waited for its answer, as far
	// as no other fault came near.
	Faults map[string]int     `json:"faults"`
	Waits  map[string]float64 `json:"longest_wait_seconds"`

	// After the last fault: seconds until a fresh message was committed everywhere, everything was answered, and everything was delivered and acknowledged.
	LiveAfter      float64 `json:"live_after_seconds"`
	AnsweredAfter  float64 `json:"answered_after_seconds"`
	DeliveredAfter float64 `json:"delivered_after_seconds"`
	// Gateways before they had clients and after.
	Before []cost `json:"gateways_before"`
	After  []cost `json:"gateways_after"`

	Violations []Violation `json:"violations"`
}

// Green tells that no promise was broken.
func (r *Report) Green() bool { return len(r.Violations) == 0 }

// Invariants names what was broken, each once.
func (r *Report) Invariants() string {
	broken := map[string]bool{}
	for _, v := range r.Violations {
		broken[v.Invariant] = true
	}
	return strings.Join(slices.Sorted(maps.Keys(broken)), " ")
}

// stored notes what the database held.
func (r *Report) stored(h History, c Content) {
	r.Overtaken = len(overtaken(h, c))
	r.Logs = len(c.Logs)
	for _, log := range c.Logs {
		r.Events += len(log)
	}
}

// finish sums up.
func (r *Report) finish(violations []Violation, h History, took time.Duration) {
	r.Violations = violations
	r.Seconds = seconds(took)
	r.Sent = len(h.Attempts)
	for _, answer := range h.Answers {
		if answer.OtherBody && h.masked(answer) {
			r.Masked++
		}
		switch {
		case answer.Again:
			r.Repeats++
		case answer.Seq > 0:
			r.Committed++
		default:
			r.Refused++
		}
	}
	for _, items := range h.Shown {
		r.Shown += len(items)
	}
	r.Faults, r.Waits = map[string]int{}, map[string]float64{}
	for i, fault := range h.Faults {
		r.Faults[fault.Name]++
		for _, answer := range h.Answers {
			if answer.Asked.Before(fault.From) || answer.Asked.After(fault.From.Add(time.Second)) || h.another(i, answer.At) {
				continue
			}
			r.Waits[fault.Name] = max(r.Waits[fault.Name], seconds(answer.At.Sub(answer.Asked)))
		}
	}
}

// another tells whether another fault than the i-th lies near its beginning or before an answer.
func (h History) another(i int, answered time.Time) bool {
	for j, other := range h.Faults {
		if j != i && other.From.Before(answered) && other.To.Add(time.Second).After(h.Faults[i].From) {
			return true
		}
	}
	return false
}

// Print writes the report for a person.
func (r *Report) Print(w io.Writer) {
	fmt.Fprintf(w, "\n%s, %d NATS server(s), seed %d, %.0f s\n", r.Store, r.NATSNodes, r.Seed, r.Seconds)
	fmt.Fprintf(w, "  %d commands: %d committed, %d refused, %d given again; %d events stored in %d conversations; %d shown\n",
		r.Sent, r.Committed, r.Refused, r.Repeats, r.Events, r.Logs, r.Shown)
	fmt.Fprintf(w, "  %d looks into the database, %d of them late because it was down; %d losses of the broker noticed; %d conflicts masked by a takeover; %d refusals overtaken\n",
		r.Looks, r.LateLooks, r.Rewinds, r.Masked, r.Overtaken)
	for _, name := range slices.Sorted(maps.Keys(r.Faults)) {
		wait := "never alone"
		if longest, alone := r.Waits[name]; alone {
			wait = fmt.Sprintf("alone: longest wait for an answer %.2f s", longest)
		}
		fmt.Fprintf(w, "  %3d × %-16s %s\n", r.Faults[name], name, wait)
	}
	fmt.Fprintf(w, "  after the last fault: live in %.2f s, all answered in %.2f s, all delivered in %.2f s\n", r.LiveAfter, r.AnsweredAfter, r.DeliveredAfter)
	for i := range r.After {
		fmt.Fprintf(w, "  gateway-%d before and after its clients: %v and %v goroutines, %d and %d MiB\n", i,
			r.Before[i].Goroutines, r.After[i].Goroutines, r.Before[i].RSS>>20, r.After[i].RSS>>20)
	}
	if r.Green() {
		fmt.Fprintf(w, "  green: every promise was kept\n")
		return
	}
	fmt.Fprintf(w, "  RED: %d promises broken (at most %d are listed); logs and data are in %s; again with --seed %d\n", len(r.Violations), maxViolations, r.Dir, r.Seed)
	for _, v := range r.Violations {
		fmt.Fprintf(w, "    %s\n", v)
	}
}
