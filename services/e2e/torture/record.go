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

// Attempt records the first submission of a command. It is recorded before the command is sent.
type Attempt struct {
	Key Key
	// Body is the command's body, canonically encoded.
	Body []byte
	// Device is the device that sent the command. Order counts the commands of that device in that conversation.
	Device string
	Order  int
	// Newest is the highest attempt of the command that was sent. It is the number of refusals received before.
	Newest uint32
}

// Answer is the answer to the first submission of a command, or to a deliberate repetition.
type Answer struct {
	Key Key
	// Asked is when the command was put into the outbox. At is when its answer arrived.
	Asked, At time.Time
	// Seq is the seq of the committed event; 0 if the command was refused with Code.
	Seq      uint64
	Repeated bool
	Code     conversationv1.ErrorCode
	// Attempt is the number of refusals of the command that had been received when it was sent.
	Attempt uint32
	// Again means that the command had been answered as committed before. OtherBody means that the repetition had another
	// body.
	Again, OtherBody bool
}

// ItemKind is the kind of an Item.
type ItemKind int

// The kinds of items that a reader is shown of a conversation.
const (
	// ItemEvent is the event First.
	ItemEvent ItemKind = iota
	// ItemHidden is the hidden stretch First to Last.
	ItemHidden
	// ItemAttached means that the user became a member with the event First.
	ItemAttached
	// ItemDetached means that the membership ended with the event Last.
	ItemDetached
	// ItemReopened means that the device's program was restarted with its saved positions.
	ItemReopened
)

// Item is an item that a reader was shown.
type Item struct {
	Kind         ItemKind
	Conversation string
	First, Last  uint64
	// Hash is the hash of an event.
	Hash string
	// Content is the digest of an event's body as it was shown; empty if it was shown as erased.
	Content string
}

// digest returns a short text that identifies an encoded body.
func digest(body []byte) string {
	sum := sha256.Sum256(body)
	return string(sum[:16])
}

// encoded returns a body in the encoding in which a gateway admits it.
func encoded(body *conversationv1.Body) []byte {
	bytes, err := conversation.EncodeBody(body)
	if err != nil {
		panic(err) // the load makes only valid bodies
	}
	return bytes
}

// content returns the digest of the part of a shown body that this version understands; empty if the body was erased. It
// does not compare the bytes: the client has verified them, and not every codec passes unknown fields to the application.
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

// understood returns the digest of an encoded body without the fields that this version does not know.
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
	// Invariant is "I1" to "I13", or another broken promise: "witness", "watermark", "chain", "crash".
	Invariant string `json:"invariant"`
	What      string `json:"what"`
}

func (v Violation) String() string { return v.Invariant + ": " + v.What }

func violation(invariant, format string, args ...any) Violation {
	return Violation{Invariant: invariant, What: fmt.Sprintf(format, args...)}
}

// Record contains everything that happened, in memory. It is safe for concurrent use while recording.
type Record struct {
	mu         sync.Mutex
	attempts   map[Key]Attempt
	answers    []Answer
	shown      map[Reader][]Item
	observed   map[Reader][]Item
	first      map[Key]uint64 // by command, the seq in the first answer
	refusals   map[Key]uint32 // by command, 1 + the highest attempt that was refused
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

// Asked records that a command is submitted again after a refusal. It is called before the command is sent.
func (r *Record) Asked(key Key, attempt uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.attempts[key]
	a.Newest = max(a.Newest, attempt)
	r.attempts[key] = a
}

// Answered records an answer. It detects at once a command that was committed twice or after its refusal, and a refusal
// that no command of the load may get.
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

// Fed records an event that the reader of a partition's feed received.
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

// Shown records an item that a reader was shown.
func (r *Record) Shown(reader Reader, item Item) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shown[reader] = append(r.shown[reader], item)
}

// Observed records an event or a hidden stretch that an observer was shown. It includes repeats, in the order of arrival
// on the observer's connections.
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

// maxViolations limits the number of violations that are kept: a broken build breaks its promises thousands of times.
const maxViolations = 50

// Violated records broken promises.
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

// Violations returns the broken promises so far.
func (r *Record) Violations() []Violation {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.violations)
}

// History is a finished record, for the checks.
type History struct {
	Attempts map[Key]Attempt
	Answers  []Answer
	// Shown contains the items that the devices' applications were shown, in order. Observed contains the items that
	// observers were shown, with repeats.
	Shown, Observed map[Reader][]Item
	// Fed contains the events that readers of the feed received, by partition, with repeats; nil if there were no
	// readers. Forks is how often they received a fork.
	Fed   map[uint32][]Fed
	Forks int

	Faults []Interval
}

// History returns the record so far.
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

// counts returns the figures for progress lines.
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
