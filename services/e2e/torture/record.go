package torture

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
)

// Key identifies a command.
type Key struct{ Conversation, Sender, Command string }

func (k Key) String() string {
	return fmt.Sprintf("command %s of %s in %s", k.Command, k.Sender, k.Conversation)
}

// Reader is one device of one user, or one observer.
type Reader struct{ User, Device string }

func (r Reader) String() string { return r.User + "/" + r.Device }

// Attempt is a command as it was first submitted. It is recorded before anything is sent.
type Attempt struct {
	Key Key
	// Body is its body, encoded canonically.
	Body []byte
	// Device gave it, as the Order-th command of that device in that conversation.
	Device string
	Order  int
	// Newest is the highest attempt that was asked for: how many refusals of the command had been received by then.
	Newest uint32
}

// Answer is an answer, to the first submission or to a deliberate repetition.
type Answer struct {
	Key Key
	// Asked and At are when the command was given to the outbox and when its answer came.
	Asked, At time.Time
	// Seq is that of the committed event; 0 when it was refused with Code.
	Seq      uint64
	Repeated bool
	Code     conversationv1.ErrorCode
	// Attempt is how many refusals of the command had been received when it was given.
	Attempt uint32
	// Again means that the command was answered as committed before; OtherBody that it was submitted with another body
	// then.
	Again, OtherBody bool
}

// ItemKind is the type of an Item.
type ItemKind int

// The things that a reader is shown of a conversation.
const (
	// ItemEvent is the event First.
	ItemEvent ItemKind = iota
	// ItemHidden stands for First to Last.
	ItemHidden
	// ItemAttached means that the user became a member with First.
	ItemAttached
	// ItemDetached means that the membership ended with Last.
	ItemDetached
	// ItemReopened means that the device's program was restarted with its saved positions.
	ItemReopened
)

// Item is one thing that a reader was shown.
type Item struct {
	Kind         ItemKind
	Conversation string
	First, Last  uint64
	// Hash is that of an event.
	Hash string
	// Content is the digest of an event's body as it was shown; empty when it was shown as erased.
	Content string
}

// digest returns a short text that identifies an encoded body.
func digest(body []byte) string {
	sum := sha256.Sum256(body)
	return string(sum[:16])
}

// encoded is a body as a gateway admits it.
func encoded(body *conversationv1.Body) []byte {
	bytes, err := conversation.EncodeBody(body)
	if err != nil {
		panic(err) // the load makes valid ones only
	}
	return bytes
}

// content returns the digest of the part of a shown body that this version understands; empty if it was erased. The client
// has checked the bytes themselves, and unknown fields do not reach the application in every codec.
func content(body *conversationv1.Body) string {
	if body == nil {
		return ""
	}
	bytes, err := conversation.EncodeBody(body)
	if err != nil {
		return err.Error() // equal to no digest
	}
	return understood(bytes)
}

// understood is the digest of an encoded body without the fields that this version does not know.
func understood(encoded []byte) string {
	known := &conversationv1.Body{}
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(encoded, known); err != nil {
		return err.Error()
	}
	bytes, err := conversation.EncodeBody(known)
	if err != nil {
		return err.Error()
	}
	return digest(bytes)
}

// Violation is one broken promise.
type Violation struct {
	// Invariant is "I1" to "I13", or what else was broken: "witness", "watermark", "chain", "crash".
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
	first      map[Key]uint64 // the seq of each committed command when it was first answered
	refusals   map[Key]uint32 // 1 + the highest attempt of each command that was refused
	fed        map[uint32][]Fed
	forks      int
	faults     []Interval
	violations []Violation
	broken     chan struct{} // closed with the first violation
}

// Interval is the time of a fault.
type Interval struct {
	// Name describes the fault: "kill gateway".
	Name     string
	From, To time.Time
}

// NewRecord makes an empty record.
func NewRecord() *Record {
	return &Record{
		attempts: map[Key]Attempt{}, shown: map[Reader][]Item{}, observed: map[Reader][]Item{}, first: map[Key]uint64{}, refusals: map[Key]uint32{},
		fed: map[uint32][]Fed{}, broken: make(chan struct{}),
	}
}

// Attempted records a command before it is sent.
func (r *Record) Attempted(a Attempt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.attempts[a.Key] = a
}

// Asked records that a command is submitted again after a refusal, before that is sent.
func (r *Record) Asked(key Key, attempt uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.attempts[key]
	a.Newest = max(a.Newest, attempt)
	r.attempts[key] = a
}

// Answered records an answer. A command that was committed twice, or after it was refused, is detected at once; and so is a
// refusal that no command of the load should get.
func (r *Record) Answered(a Answer) {
	r.mu.Lock()
	r.answers = append(r.answers, a)
	seq, told := r.first[a.Key]
	refused := r.refusals[a.Key]
	switch {
	case a.Again:
	case a.Seq == 0:
		r.refusals[a.Key] = max(refused, a.Attempt+1)
	case !told:
		r.first[a.Key] = a.Seq
	}
	r.mu.Unlock()
	switch {
	case told && a.Seq > 0 && seq != a.Seq:
		r.Violated(committedTwice(a.Key, seq, a.Seq))
	case a.Seq > 0 && !a.Again && a.Attempt < refused:
		r.Violated(violation("I13", "attempt %d of %s was refused, and was committed afterwards with seq %d", a.Attempt, a.Key, a.Seq))
	case a.Code == conversationv1.ErrorCode_ERROR_CODE_INVALID:
		r.Violated(violation("judgement", "%s was refused as invalid, and everything that it names exists", a.Key))
	}
}

// Fed notes an event that the reader of a partition's feed was given.
func (r *Record) Fed(partition uint32, entry Fed) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fed[partition] = append(r.fed[partition], entry)
}

// Forked records that a reader of a feed received a fork.
func (r *Record) Forked() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forks++
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

// Fault records the time of a fault.
func (r *Record) Fault(name string, from, to time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, Interval{name, from, to})
}

// maxViolations limits the violations that are kept: a broken build breaks its promises thousands of times.
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
	// Fed is what the readers of the feed were given, by partition, with repeats; nil when there were none. Forks is how often they were
	// told that the log went back.
	Fed   map[uint32][]Fed
	Forks int

	Faults []Interval
}

// History is what was recorded so far.
func (r *Record) History() History {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := History{
		Attempts: maps.Clone(r.attempts), Answers: slices.Clone(r.answers), Faults: slices.Clone(r.faults), Forks: r.forks,
		Shown: cloneItems(r.shown), Observed: cloneItems(r.observed),
	}
	if len(r.fed) > 0 {
		h.Fed = make(map[uint32][]Fed, len(r.fed))
		for partition, entries := range r.fed {
			h.Fed[partition] = slices.Clone(entries)
		}
	}
	return h
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
