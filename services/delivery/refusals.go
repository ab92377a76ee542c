package delivery

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/runnelhq/runnel/pkg/rpc"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
	"github.com/runnelhq/runnel/services/delivery/source"
)

const (
	// refusalMemory is for how long, by stream time, a refusal is remembered.
	refusalMemory = 10 * time.Minute
	// refusalLeft is for how long a refusal must still be remembered when it is answered to a later copy: twice the time that
	// copies of a command may take into the stream, the longest wait for an outcome, and the clocks' difference that raises an
	// alarm. Whoever receives that answer may have other copies on their way.
	refusalLeft = 6 * time.Minute
)

// refusals are the refusals of a partition that no later copy of a command may get around. They are in the store as well:
// they become known here when their append is committed, or at a takeover. What is known at a stream time does not depend on
// when it is asked: an old refusal counts as forgotten although it is still in memory.
//
// It has no lock: the apply loop alone uses it.
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

// find returns the refusal that holds for an attempt of a command at a stream time: one of this attempt or a higher one.
func (r *refusals) find(key source.CommandKey, attempt uint32, nowMs int64) *refused {
	if len(r.latest) == 0 || bugRefusalForgotten {
		return nil
	}
	if known := r.latest[key]; known != nil && known.holds(attempt, nowMs) {
		return known
	}
	return nil
}

func (r *refused) holds(attempt uint32, nowMs int64) bool {
	return r.attempt >= attempt && nowMs-r.timeMs <= refusalMemory.Milliseconds()
}

// stale reports whether a refusal must be remembered anew when it is answered again.
func (r *refused) stale(nowMs int64) bool {
	return nowMs-r.timeMs > (refusalMemory - refusalLeft).Milliseconds()
}

func (r *refused) proto() *historyv1.Refusal {
	return &historyv1.Refusal{Command: r.key.Proto(), Attempt: r.attempt, Commitment: r.commitment, Error: r.err, TimeMs: r.timeMs}
}

// room reports whether one more refusal can be remembered at a stream time, beside those that a batch adds already.
func (r *refusals) room(nowMs int64, batch []*historyv1.Refusal) bool {
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

// loadRefusals learns of the refusals that the owners before remembered. A refusal that is not known could be answered again
// as a success, so the partition waits for all of them.
func (s *session) loadRefusals(ctx context.Context, nowMs int64) error {
	request := &historyv1.ListRefusalsRequest{Partition: uint32(s.owner.partition), Limit: rpc.MaxItems}
	var all []*historyv1.Refusal
	for more := true; more; {
		call, cancel := context.WithTimeout(ctx, s.owner.cfg.AppendTimeout)
		page, err := s.owner.history.ListRefusals(call, request)
		cancel()
		if err != nil {
			return fmt.Errorf("list the refusals that are remembered: %w", err)
		}
		all = append(all, page.GetRefusals()...)
		if more = page.GetMore() && len(page.GetRefusals()) > 0; more {
			request.After = page.GetRefusals()[len(page.GetRefusals())-1].GetCommand()
		}
	}
	s.refusals.load(all, nowMs)
	s.owner.gauges.Refusals.Set(float64(s.refusals.size()))
	return nil
}
