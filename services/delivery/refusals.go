package delivery

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
	// refusalMemory is for how long, by stream time, a refusal is remembered.
	refusalMemory = 10 * time.Minute
	// refusalLeft is for how long a refusal must still be remembered when it answers a later copy: twice the time in which
	// copies of a command may reach the stream, the longest wait for an outcome, and the clock skew that raises an alarm. The
	// client that receives the answer may have sent other copies, which are not in the stream yet.
	refusalLeft = 6 * time.Minute
)

// refusals are the refusals of a partition: a later copy of a refused command gets the same answer. They are in the store as
// well, and are added here when their append is committed, or at a takeover. The answer at a stream time does not depend on
// when it is asked for: a refusal that is too old does not count, although it is still in memory.
//
// It is not safe for concurrent use: only the commit loop uses it.
type refusals struct {
	limit  int
	latest map[source.CommandKey]*refused
	// byTime holds every refusal that was added, the oldest first; those before begin are forgotten.
	byTime []*refused
	begin  int
}

// refused is one refusal. It is never changed.
type refused struct {
	key     source.CommandKey
	attempt uint32
	timeMs  int64
	err     *conversationv1.Error
	// commitment is that of the copy that was refused first.
	commitment []byte
}

func newRefusals(limit int) *refusals {
	return &refusals{limit: limit, latest: map[source.CommandKey]*refused{}}
}

// find returns the refusal that holds for an attempt of a command at a stream time; nil for none.
func (r *refusals) find(key source.CommandKey, attempt uint32, nowMs int64) *refused {
	if len(r.latest) == 0 {
		return nil
	}
	if known := r.latest[key]; known != nil && known.answers(attempt, nowMs) {
		return known
	}
	return nil
}

// answers reports whether the refusal is the answer to an attempt of its command at a stream time: it is one of this attempt
// or a higher one, and not too old.
func (r *refused) answers(attempt uint32, nowMs int64) bool {
	return !bugRefusalForgotten && r.holds(attempt, nowMs)
}

func (r *refused) holds(attempt uint32, nowMs int64) bool {
	return r.attempt >= attempt && nowMs-r.timeMs <= refusalMemory.Milliseconds()
}

// stale reports whether a refusal must be stored again when it is the answer to a later copy.
func (r *refused) stale(nowMs int64) bool {
	return nowMs-r.timeMs > (refusalMemory - refusalLeft).Milliseconds()
}

func (r *refused) proto() *historyv1.Refusal {
	return &historyv1.Refusal{Command: r.key.Proto(), Attempt: r.attempt, Commitment: r.commitment, Error: r.err, TimeMs: r.timeMs}
}

// fits reports whether one more refusal can be remembered at a stream time, beside those that a batch adds already.
func (r *refusals) fits(nowMs int64, batch []*historyv1.Refusal) bool {
	oldest := nowMs - refusalMemory.Milliseconds()
	known := r.byTime[r.begin:]
	live := len(known) - sort.Search(len(known), func(i int) bool { return known[i].timeMs >= oldest })
	live += len(batch) - sort.Search(len(batch), func(i int) bool { return batch[i].GetTimeMs() >= oldest })
	return live < r.limit
}

// add remembers refusals, and forgets those that are too old by the stream's time.
func (r *refusals) add(list []*historyv1.Refusal, nowMs int64) {
	for _, refusal := range list {
		next := &refused{
			key: source.KeyOfProto(refusal.GetCommand()), attempt: refusal.GetAttempt(), timeMs: refusal.GetTimeMs(),
			err: refusal.GetError(), commitment: refusal.GetCommitment(),
		}
		r.byTime = append(r.byTime, next)
		if known := r.latest[next.key]; known == nil || known.attempt <= next.attempt || !known.holds(0, next.timeMs) {
			r.latest[next.key] = next
		}
	}
	r.forget(nowMs)
}

// load adds refusals of the store, which come in any order of time.
func (r *refusals) load(list []*historyv1.Refusal, nowMs int64) {
	slices.SortStableFunc(list, func(a, b *historyv1.Refusal) int { return cmp.Compare(a.GetTimeMs(), b.GetTimeMs()) })
	r.add(list, nowMs)
}

func (r *refusals) forget(nowMs int64) {
	for r.begin < len(r.byTime) && nowMs-r.byTime[r.begin].timeMs > refusalMemory.Milliseconds() {
		old := r.byTime[r.begin]
		if r.latest[old.key] == old {
			delete(r.latest, old.key)
		}
		r.byTime[r.begin] = nil
		r.begin++
	}
	if r.begin > len(r.byTime)/2 {
		r.byTime = append(make([]*refused, 0, len(r.byTime)-r.begin), r.byTime[r.begin:]...)
		r.begin = 0
	}
}

// size is the number of refusals in memory.
func (r *refusals) size() int { return len(r.byTime) - r.begin }
