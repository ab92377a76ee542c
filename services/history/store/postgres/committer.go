package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/history/store"
)

const (
	// commitLanes is the number of transactions at a time: one collects appends while the other is being committed.
	commitLanes = 2
	// maxWaiting limits the appends that wait; the caller of the next one waits until there is room.
	maxWaiting = 256
	// maxGroup, maxGroupRows and maxGroupBytes limit a transaction, so that no answer waits for an endless one. An append
	// that is larger has a transaction of its own.
	maxGroup      = 64
	maxGroupRows  = 2048
	maxGroupBytes = 4 << 20
	// groupTimeout is the time limit of a group, even if its callers would wait longer. It is that of a statement; see guards.
	groupTimeout = 10 * time.Second
)

// errAlone tells the caller of an append to commit it alone, because the group that it was in was undone.
var errAlone = errors.New("the append must be committed alone")

// committer commits appends of several partitions together. An append begins at once if a lane is free. While all lanes are
// busy, appends collect, and the next free lane takes them all: so a transaction holds one append while commits are rare, and
// many while they crowd, without a timer.
//
// Of each partition at most one append is under way; a second one waits for a later group, so that appends of a partition are
// decided in their order of arrival.
type committer struct {
	// commit decides appends together and returns an outcome for each.
	commit func(ctx context.Context, batches []*store.Batch) []error
	room   chan struct{} // one token for each append that waits

	mu      sync.Mutex
	more    *sync.Cond // signalled when an append arrives, and when the committer is closed
	waiting []*joined
	busy    map[ids.Partition]struct{} // partitions with an append under way
	closed  bool

	committing atomic.Int32 // groups under way

	quit  chan struct{}
	lanes sync.WaitGroup
}

// joined is an append that waits for its outcome.
type joined struct {
	ctx     context.Context //nolint:containedctx // of the caller, who may stop waiting
	batch   *store.Batch
	bytes   int
	outcome chan error // has a buffer of one: a lane never waits for a caller
}

func startCommitter(lanes int, commit func(ctx context.Context, batches []*store.Batch) []error) *committer {
	c := &committer{commit: commit, room: make(chan struct{}, maxWaiting), busy: map[ids.Partition]struct{}{}, quit: make(chan struct{})}
	c.more = sync.NewCond(&c.mu)
	for range lanes {
		c.lanes.Go(c.lane)
	}
	return c
}

// join adds an append and waits for its outcome: nil if it was committed; errAlone if nothing was done and the caller must
// commit it alone. After any other error the outcome is unknown. If ctx ends while the append still waits, it is not begun.
func (c *committer) join(ctx context.Context, batch *store.Batch) error {
	select {
	case c.room <- struct{}{}:
	case <-c.quit:
		return errClosed
	case <-ctx.Done():
		return fmt.Errorf("wait to be committed: %w", ctx.Err())
	}
	j := &joined{ctx: ctx, batch: batch, bytes: bytesOf(batch), outcome: make(chan error, 1)}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return errClosed
	}
	c.waiting = append(c.waiting, j)
	c.more.Signal()
	c.mu.Unlock()
	select {
	case err := <-j.outcome:
		return err
	case <-ctx.Done():
		return fmt.Errorf("wait for the commit: %w", ctx.Err())
	}
}

var errClosed = fmt.Errorf("%w: it is closed", store.ErrUnavailable)

// rowsOf is the approximate number of rows that a batch writes.
func rowsOf(batch *store.Batch) int {
	return len(batch.Rows) + len(batch.GetEffects()) + len(batch.GetRefusals()) + len(batch.GetDeadLetters())
}

// bytesOf is the approximate size of a batch in a transaction.
func bytesOf(batch *store.Batch) int {
	const perRow = 256
	bytes := perRow * len(batch.Rows)
	for i := range batch.Rows {
		bytes += len(batch.Rows[i].GetBody())
	}
	for _, letter := range batch.GetDeadLetters() {
		bytes += len(letter.GetPayload())
	}
	return bytes
}

// close lets running groups end, and refuses what waits.
func (c *committer) close() {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	c.closed = true
	close(c.quit)
	for _, j := range c.waiting {
		j.outcome <- errClosed
	}
	c.waiting = nil
	c.more.Broadcast()
	c.mu.Unlock()
	c.lanes.Wait()
}

// waitingNow is the number of appends that wait for a lane.
func (c *committer) waitingNow() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.waiting)
}

// lane commits one group after the other.
func (c *committer) lane() {
	var group []*joined
	var batches []*store.Batch
	for {
		if group = c.take(group[:0]); len(group) == 0 {
			return
		}
		batches = batches[:0]
		for _, j := range group {
			batches = append(batches, j.batch)
		}
		c.run(group, batches)
		clear(group)
		clear(batches)
	}
}

// take waits for appends and takes those that can be committed together; none if the committer is closed.
func (c *committer) take(group []*joined) []*joined {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if group = c.gather(group); len(group) > 0 || c.closed {
			return group
		}
		c.more.Wait()
	}
}

// gather takes the first appends that wait, of partitions that have none under way, as far as the limits allow. It drops
// those whose callers have stopped waiting.
func (c *committer) gather(group []*joined) []*joined {
	kept := c.waiting[:0]
	rows, bytes, full := 0, 0, false
	for i, j := range c.waiting {
		if err := j.ctx.Err(); err != nil {
			j.outcome <- err
			<-c.room
			continue
		}
		partition := ids.Partition(j.batch.GetPartition())
		if full = full || len(group) == maxGroup || len(group) > 0 && (rows+rowsOf(j.batch) > maxGroupRows || bytes+j.bytes > maxGroupBytes); full {
			kept = append(kept, c.waiting[i:]...)
			break
		}
		if _, busy := c.busy[partition]; busy {
			kept = append(kept, j)
			continue
		}
		c.busy[partition] = struct{}{}
		group = append(group, j)
		rows, bytes = rows+rowsOf(j.batch), bytes+j.bytes
		<-c.room
	}
	clear(c.waiting[len(kept):])
	c.waiting = kept
	return group
}

// run commits a group and answers its callers.
func (c *committer) run(group []*joined, batches []*store.Batch) {
	ctx, cancel := context.WithDeadline(context.Background(), deadline(group))
	defer cancel()
	c.committing.Add(1)
	outcomes := c.commit(ctx, batches)
	c.committing.Add(-1)
	c.mu.Lock()
	for _, j := range group {
		delete(c.busy, ids.Partition(j.batch.GetPartition()))
	}
	c.mu.Unlock()
	for i, j := range group {
		j.outcome <- outcomes[i]
	}
}

// deadline is when nobody waits for a group any more.
func deadline(group []*joined) time.Time {
	latest := time.Now().Add(groupTimeout)
	var last time.Time
	for _, j := range group {
		until, limited := j.ctx.Deadline()
		if !limited || until.After(latest) {
			return latest
		}
		if until.After(last) {
			last = until
		}
	}
	return last
}
