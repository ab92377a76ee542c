package torture

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// Report is the verdict of one run, with its evidence.
type Report struct {
	Name      string `json:"name"`
	Seed      uint64 `json:"seed"`
	Store     string `json:"store"`
	NATSNodes int    `json:"nats_nodes"`
	Plan      Plan   `json:"plan"`
	Lazy      Lazy   `json:"lazy,omitempty"`
	Dir       string `json:"dir"`
	// Skipped is why the run was not made; empty if it was made. A skipped run is neither green nor red.
	Skipped string `json:"skipped,omitempty"`

	Seconds   float64 `json:"seconds"`
	Sent      int     `json:"sent"`
	Committed int     `json:"committed"`
	Refused   int     `json:"refused"`
	Shown     int     `json:"shown"`
	Events    int     `json:"events_stored"`
	Logs      int     `json:"conversations"`
	Repeats   int     `json:"repeats"`
	// Conflicts is the number of repetitions with another body, which were refused.
	Conflicts int `json:"conflicts"`
	// Resumed is the number of connections of clients after their first.
	Resumed int `json:"resumed"`
	Counts
	// Erased is the number of events whose content was erased. Fed is the number of events that readers of the feed
	// received, Forks the number of forks they received. Snapshots is the number of conversations that were checked while
	// they were written.
	Erased    int `json:"events_erased"`
	Fed       int `json:"events_fed"`
	Forks     int `json:"feed_forks"`
	Snapshots int `json:"snapshots"`
	// Purged is the number of commands that workers removed from streams, since their last start.
	Purged int `json:"commands_purged"`
	// Looks is the number of reads of the database for sightings. LateLooks is how many of them waited for the database.
	Looks     int `json:"looks"`
	LateLooks int `json:"late_looks"`
	// Rewinds is how often workers noticed that the broker had lost messages.
	Rewinds int `json:"rewinds"`

	// Faults counts the faults by kind and part. Waits is the longest wait for an answer, for commands submitted within
	// the first second of a fault, if no other fault was near.
	Faults map[string]int     `json:"faults"`
	Waits  map[string]float64 `json:"longest_wait_seconds"`

	// The seconds after the last fault until: a fresh message was committed in every conversation, all commands were
	// answered, and all events were delivered and acknowledged.
	LiveAfter      float64 `json:"live_after_seconds"`
	AnsweredAfter  float64 `json:"answered_after_seconds"`
	DeliveredAfter float64 `json:"delivered_after_seconds"`
	// Roll is set only for a roll.
	Roll *RollReport `json:"roll,omitempty"`
	// Versions is set only for a run that mixes versions.
	Versions *VersionReport `json:"versions,omitempty"`

	// Costs are the resources that services used before they had clients and after.
	Costs []Costs `json:"costs"`

	Violations []Violation `json:"violations"`
	// Noticed is the lost data that a negative control detected; empty for other runs.
	Noticed []Violation `json:"noticed,omitempty"`
}

// Green reports whether the run was made and no promise was broken.
func (r *Report) Green() bool { return r.Skipped == "" && len(r.Violations) == 0 }

// Verdict returns "green", "RED" or "skipped".
func (r *Report) Verdict() string {
	switch {
	case r.Skipped != "":
		return "skipped"
	case r.Green():
		return "green"
	default:
		return "RED"
	}
}

// Invariants lists the broken invariants, each once.
func (r *Report) Invariants() string {
	broken := map[string]bool{}
	for _, v := range r.Violations {
		broken[v.Invariant] = true
	}
	return strings.Join(slices.Sorted(maps.Keys(broken)), " ")
}

// stored records figures of the database's content.
func (r *Report) stored(h History, c Content) {
	r.Logs, r.Forks = len(c.Logs), h.Forks
	for _, log := range c.Logs {
		r.Events += len(log)
		for _, event := range log {
			if len(event.GetBody()) == 0 {
				r.Erased++
			}
		}
	}
	for _, entries := range h.Fed {
		r.Fed += len(entries)
	}
}

// finish computes the summary.
func (r *Report) finish(violations []Violation, h History, took time.Duration) {
	r.Violations = violations
	r.Seconds = seconds(took)
	r.Sent = len(h.Attempts)
	for _, answer := range h.Answers {
		if answer.OtherBody && answer.Seq == 0 {
			r.Conflicts++
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

// another reports whether another fault overlaps the time from the i-th fault's beginning to the answer, or ended within
// a second before it.
func (h History) another(i int, answered time.Time) bool {
	for j, other := range h.Faults {
		if j != i && other.From.Before(answered) && other.To.Add(time.Second).After(h.Faults[i].From) {
			return true
		}
	}
	return false
}

// Print writes the report as readable text.
func (r *Report) Print(w io.Writer) {
	fmt.Fprintf(w, "\n%s: %s, %d NATS server(s), seed %d, %.0f s\n", r.Name, r.Store, r.NATSNodes, r.Seed, r.Seconds)
	if r.Skipped != "" {
		fmt.Fprintf(w, "  %s\n", r.Skipped)
		return
	}
	fmt.Fprintf(w, "  %d commands: %d committed, %d refused, %d given again, %d of them with another body and refused; %d events stored in %d conversations; %d shown\n",
		r.Sent, r.Committed, r.Refused, r.Repeats, r.Conflicts, r.Events, r.Logs, r.Shown)
	fmt.Fprintf(w, "  %d connections resumed; %d looks into the database, %d of them late because it was down; %d losses of the broker noticed\n",
		r.Resumed, r.Looks, r.LateLooks, r.Rewinds)
	fmt.Fprintf(w, "  %d events erased; %d events read from the feed, %d forks of it; %d conversations checked while they were written; %d committed commands made room\n",
		r.Erased, r.Fed, r.Forks, r.Snapshots, r.Purged)
	r.printCounts(w)
	if r.Roll != nil {
		r.Roll.print(w)
	}
	if r.Versions != nil {
		r.Versions.print(w)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Faults)) {
		wait := "never alone"
		if longest, alone := r.Waits[name]; alone {
			wait = fmt.Sprintf("alone: longest wait for an answer %.2f s", longest)
		}
		fmt.Fprintf(w, "  %3d × %-26s %s\n", r.Faults[name], name, wait)
	}
	if len(r.Noticed) > 0 {
		fmt.Fprintf(w, "  green: the control lost what it had acknowledged, and that was noticed (at most %d are counted: %d), first:\n    %s\n",
			maxViolations, len(r.Noticed), r.Noticed[0])
		return
	}
	fmt.Fprintf(w, "  after the last fault: live in %.2f s, all answered in %.2f s, all delivered in %.2f s\n", r.LiveAfter, r.AnsweredAfter, r.DeliveredAfter)
	for _, c := range r.Costs {
		fmt.Fprintf(w, "  %s before and after clients: %v and %v goroutines, %.0f and %.0f MiB\n", c.Service,
			c.Before.Goroutines, c.After.Goroutines, c.Before.RSS/(1<<20), c.After.RSS/(1<<20))
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

func (c Counts) printCounts(w io.Writer) {
	var parts []string
	for _, part := range []struct {
		n    int
		text string
	}{
		{c.Zombies, "%d commits of zombies refused"},
		{c.Slow, "%d connections closed as slow"},
		{c.SlowTold, "%d of them told so"},
		{c.Cut, "%d connections cut in the network"},
		{c.Powerless, "%d losses of power survived"},
		{c.Survived, "%d acknowledgements checked after them"},
	} {
		if part.n > 0 {
			parts = append(parts, fmt.Sprintf(part.text, part.n))
		}
	}
	if len(parts) > 0 {
		fmt.Fprintf(w, "  %s\n", strings.Join(parts, ", "))
	}
}

func (r *RollReport) print(w io.Writer) {
	fmt.Fprintf(w, "  %d gateways replaced under %d clients in %.1f s; %d sent away, at most %d a second (drain rate %d); %d dropped; %d came back, at most %d a second; %d events came twice\n",
		r.Gateways, r.Clients, r.Seconds, r.SentAway, r.PeakAway, r.DrainRate, r.Dropped, r.Back, r.PeakBack, r.Repeats)
	fmt.Fprintf(w, "  calls of the history a second before and during the roll:")
	for _, operation := range slices.Sorted(maps.Keys(r.Rolling)) {
		fmt.Fprintf(w, " %s %.0f → %.0f;", operation, r.Calm[operation], r.Rolling[operation])
	}
	fmt.Fprintln(w)
}

func (r *VersionReport) print(w io.Writer) {
	fmt.Fprintf(w, "  starts as present and next version:")
	for _, kind := range slices.Sorted(maps.Keys(r.Present)) {
		fmt.Fprintf(w, " %s %d and %d;", kind, r.Present[kind], r.Next[kind])
	}
	fmt.Fprintf(w, " %d changes; %d committed commands with a field of the next version\n", r.Changes, r.Hinted)
}
