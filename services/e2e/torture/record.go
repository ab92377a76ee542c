package torture

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// Key identifies a command.
type Key struct{ Conversation, Sender, Command string }

func (k Key) String() string {
	return fmt.Sprintf("command %s of %s in %s", k.Command, k.Sender, k.Conversation)
}

// Reader is one device of one user, or one observer.
type Reader struct{ User, Device string }

func (r Reader) String() string { return r.User + "/" + r.Device }

// Attempt is a command as it was first given to the outbox. It is recorded before anything is sent.
type Attempt struct {
	Key  Key
	Body *conversationv1.Body
	// Device gave it, as the Order-th command of that device in that conversation.
	Device string
	Order  int
}

// Answer is what came back, for the first time or for a deliberate repetition.
type Answer struct {
	Key Key
	// Asked and At are when the command was given to the outbox and when its answer came.
	Asked, At time.Time
	// Seq is that of the committed event; 0 when it was refused with Code.
	Seq      uint64
	Repeated bool
	Code     conversationv1.ErrorCode
	// Again says that the command had been answered as committed before; OtherBody that it was given another body then.
	Again, OtherBody bool
}

// ItemKind tells what an Item is.
type ItemKind int

// The things that a reader is shown of a conversation.
const (
	// ItemEvent is the event First.
	ItemEvent ItemKind = iota
	// ItemHidden stands for First to Last.
	ItemHidden
	// ItemAttached says that the user became a member with First.
	ItemAttached
	// ItemDetached says that the membership ended with Last.
	ItemDetached
	// ItemReopened says that the device's program was started anew, with the positions it had kept.
	ItemReopened
)

// Item is one thing that a reader was shown.
type Item struct {
	Kind         ItemKind
	Conversation string
	First, Last  uint64
	// Hash is that of an event.
	Hash string
}

// Violation is one broken promise.
type Violation struct {
	// Invariant is "I1" to "I10", or what else was broken: "witness", "watermark", "chain", "crash".
	Invariant string `json:"invariant"`
	What      string `json:"what"`
}

func (v Violation) String() string { return v.Invariant + ": " + v.What }

func violation(invariant, format string, args ...any) Violation {
	return Violation{Invariant: invariant, What: fmt.Sprintf(format, args...)}
}

// Record is everything that happened, in memory. It is safe for concurrent use while recording.
type Record struct {
	mu         sync.Mutex
	attempts   map[Key]Attempt
	answers    []Answer
	shown      map[Reader][]Item
	observed   map[Reader][]Item
	first      map[Key]uint64 // the seq of each committed command when it was first told
	faults     []Interval
	violations []Violation
	broken     chan struct{} // closed with the first violation
}

// Interval is a time during which something was wrong on purpose.
type Interval struct {
	// Name says what was done to what: "kill gateway".
	Name     string
	From, To time.Time
}

// NewRecord makes an empty record.
func NewRecord() *Record {
	return &Record{attempts: map[Key]Attempt{}, shown: map[Reader][]Item{}, observed: map[Reader][]Item{}, first: map[Key]uint64{}, broken: make(chan struct{})}
}

// Attempted notes a command before it is sent.
func (r *Record) Attempted(a Attempt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.attempts[a.Key] = a
}

// Answered notes an answer. A command that was committed twice is seen at once.
func (r *Record) Answered(a Answer) {
	r.mu.Lock()
	r.answers = append(r.answers, a)
	seq, told := r.first[a.Key]
	if !told && a.Seq > 0 {
		r.first[a.Key] = a.Seq
	}
	r.mu.Unlock()
	if told && a.Seq > 0 && seq != a.Seq {
		r.Violated(committedTwice(a.Key, seq, a.Seq))
	}
}

// Shown notes what a reader was shown.
func (r *Record) Shown(reader Reader, item Item) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shown[reader] = append(r.shown[reader], item)
}

// Observed notes an event or a hidden stretch that an observer was shown; with repeats, in whatever order its connections brought it.
func (r *Record) Observed(reader Reader, item Item) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.observed[reader] = append(r.observed[reader], item)
}

// Fault notes a time in which something was wrong on purpose.
func (r *Record) Fault(name string, from, to time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, Interval{name, from, to})
}

// maxViolations are kept: a broken build breaks its promises thousands of times.
const maxViolations = 50

// Violated notes broken promises.
func (r *Record) Violated(violations ...Violation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, v := range violations {
		if len(r.violations) == 0 {
			close(r.broken)
		}
		if len(r.violations) < maxViolations && !slices.Contains(r.violations, v) {
			r.violations = append(r.violations, v)
		}
	}
}

// Broken is closed when a promise was broken.
func (r *Record) Broken() <-chan struct{} { return r.broken }

// Violations are the broken promises so far.
func (r *Record) Violations() []Violation {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.violations)
}

// History is a finished record, for the checks.
type History struct {
	Attempts map[Key]Attempt
	Answers  []Answer
	// Shown is what the devices' applications were shown, in order; Observed what observers were shown, with repeats.
	Shown, Observed map[Reader][]Item

	Faults []Interval
}

// History is what was recorded so far.
func (r *Record) History() History {
	r.mu.Lock()
	defer r.mu.Unlock()
	return History{
		Attempts: maps.Clone(r.attempts), Answers: slices.Clone(r.answers), Faults: slices.Clone(r.faults),
		Shown: cloneItems(r.shown), Observed: cloneItems(r.observed),
	}
}

func cloneItems(items map[Reader][]Item) map[Reader][]Item {
	all := make(map[Reader][]Item, len(items))
	for reader, list := range items {
		all[reader] = slices.Clone(list)
	}
	return all
}

// counts are for progress lines.
func (r *Record) counts() (sent, committed, refused, shown int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.answers {
		if a.Seq > 0 {
			committed++
		} else {
			refused++
		}
	}
	for _, readers := range []map[Reader][]Item{r.shown, r.observed} {
		for _, items := range readers {
			shown += len(items)
		}
	}
	return len(r.attempts), committed, refused, shown
}
