package dedupe

import (
	"cmp"
	"slices"
	"sort"
	"time"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
	"github.com/runnelhq/runnel/services/delivery/source"
)

const (
	// RefusalMemory is how long a refusal is remembered, by stream time.
	RefusalMemory = 10 * time.Minute
	// refusalLeft is the minimum remaining time of a refusal that answers a later copy. A refusal with less time left is
	// stored again. The client that receives the answer may have sent other copies that are not in the stream yet.
	// Therefore the time is the sum of: twice the time in which copies of a command may reach the stream, the longest
	// wait for an outcome, and the clock skew that raises an alarm.
	refusalLeft = 6 * time.Minute
)

// Refusals are the refusals of a partition: a later copy of a refused command gets the same answer. The store also has
// them. They are added here when their append is committed, or at a takeover. Whether a refusal applies depends only on
// stream times: a refusal that is too old does not apply, even while it is still in memory.
//
// It is not safe for concurrent use: only the commit loop uses it.
type Refusals struct {
	Limit  int
	Latest map[source.CommandKey]*Refusal
	// byTime contains all added refusals, oldest first; the refusals before begin are forgotten.
	byTime []*Refusal
	begin  int
}

// Refusal is one refusal. It is never changed after it was made.
type Refusal struct {
	Key     source.CommandKey
	Attempt uint32
	TimeMs  int64
	Err     *conversationv1.Error
	// Commitment is the commitment of the copy that was refused first.
	Commitment []byte
}

// NewRefusals makes an empty memory of at most limit refusals.
func NewRefusals(limit int) *Refusals {
	return &Refusals{Limit: limit, Latest: map[source.CommandKey]*Refusal{}}
}

// Find returns the refusal that applies to an attempt of a command at a stream time; nil if none applies.
func (r *Refusals) Find(key source.CommandKey, attempt uint32, nowMs int64) *Refusal {
	if len(r.Latest) == 0 {
		return nil
	}
	if known := r.Latest[key]; known != nil && known.Answers(attempt, nowMs) {
		return known
	}
	return nil
}

// Answers reports whether the refusal is the answer to an attempt of its command at a stream time: it must not be too
// old, and must be of this attempt or a higher one.
func (r *Refusal) Answers(attempt uint32, nowMs int64) bool {
	return !bugRefusalForgotten && r.holds(attempt, nowMs)
}

func (r *Refusal) holds(attempt uint32, nowMs int64) bool {
	return r.Attempt >= attempt && nowMs-r.TimeMs <= RefusalMemory.Milliseconds()
}

// Stale reports whether a refusal must be stored again when it answers a later copy.
func (r *Refusal) Stale(nowMs int64) bool {
	return nowMs-r.TimeMs > (RefusalMemory - refusalLeft).Milliseconds()
}

// Proto returns the refusal in the store's form.
func (r *Refusal) Proto() *historyv1.Refusal {
	return &historyv1.Refusal{Command: r.Key.Proto(), Attempt: r.Attempt, Commitment: r.Commitment, Error: r.Err, TimeMs: r.TimeMs}
}

// Fits reports whether one more refusal can be remembered at a stream time, in addition to the refusals in batch.
func (r *Refusals) Fits(nowMs int64, batch []*historyv1.Refusal) bool {
	oldest := nowMs - RefusalMemory.Milliseconds()
	known := r.byTime[r.begin:]
	live := len(known) - sort.Search(len(known), func(i int) bool { return known[i].TimeMs >= oldest })
	live += len(batch) - sort.Search(len(batch), func(i int) bool { return batch[i].GetTimeMs() >= oldest })
	return live < r.Limit
}

// Add remembers refusals, and forgets refusals that are too old by the stream's time.
func (r *Refusals) Add(list []*historyv1.Refusal, nowMs int64) {
	for _, refusal := range list {
		next := &Refusal{
			Key: source.KeyOfProto(refusal.GetCommand()), Attempt: refusal.GetAttempt(), TimeMs: refusal.GetTimeMs(),
			Err: refusal.GetError(), Commitment: refusal.GetCommitment(),
		}
		r.byTime = append(r.byTime, next)
		if known := r.Latest[next.Key]; known == nil || known.Attempt <= next.Attempt || !known.holds(0, next.TimeMs) {
			r.Latest[next.Key] = next
		}
	}
	r.forget(nowMs)
}

// Load adds refusals that were read from the store. They may be in any order.
func (r *Refusals) Load(list []*historyv1.Refusal, nowMs int64) {
	slices.SortStableFunc(list, func(a, b *historyv1.Refusal) int { return cmp.Compare(a.GetTimeMs(), b.GetTimeMs()) })
	r.Add(list, nowMs)
}

func (r *Refusals) forget(nowMs int64) {
	for r.begin < len(r.byTime) && nowMs-r.byTime[r.begin].TimeMs > RefusalMemory.Milliseconds() {
		old := r.byTime[r.begin]
		if r.Latest[old.Key] == old {
			delete(r.Latest, old.Key)
		}
		r.byTime[r.begin] = nil
		r.begin++
	}
	if r.begin > len(r.byTime)/2 {
		r.byTime = append(make([]*Refusal, 0, len(r.byTime)-r.begin), r.byTime[r.begin:]...)
		r.begin = 0
	}
}

// Size is the number of refusals in memory.
func (r *Refusals) Size() int { return len(r.byTime) - r.begin }
