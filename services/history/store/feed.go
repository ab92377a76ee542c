package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/runnelhq/runnel/pkg/ids"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// Feed returns the committed events of a partition by position.
type Feed interface {
	// ReadFeed returns the events after a position that exist now, without waiting; nil is the beginning. *ForkError if
	// the position is not on the partition's log.
	ReadFeed(ctx context.Context, partition ids.Partition, after *historyv1.Position, limit int) (*historyv1.ReadFeedResponse, error)
	// FeedBell returns a channel that is closed by the next append to a partition. Call it before reading, so that no
	// append is missed. Appends of other processes may not close the channel, so read again every FeedRecheck.
	FeedBell(partition ids.Partition) <-chan struct{}
	// FeedCursors returns the saved cursors of a reader; partitions without a saved cursor are left out.
	FeedCursors(ctx context.Context, reader string) ([]*historyv1.FeedCursor, error)
	// SaveFeedCursor stores the cursor of a reader.
	SaveFeedCursor(ctx context.Context, reader string, cursor *historyv1.FeedCursor) error
}

// ForkError means that a position is not on a partition's log: the log went back to an earlier position.
type ForkError struct {
	*historyv1.Fork
}

func (e *ForkError) Error() string {
	return fmt.Sprintf("position (%d, %d) is not on the log of partition %d: the log went back", e.GetAsked().GetEpoch(), e.GetAsked().GetSequence(), e.GetPartition())
}

// Epoch is one epoch of a partition.
type Epoch struct {
	// ID is the id of the epoch in the table of events.
	ID    int64
	Epoch ids.Epoch
	// Last is the last sequence of the epoch. For the current epoch it is the sequence of the watermark.
	Last ids.Sequence
}

// CheckPosition returns a *ForkError if the position asked is not on the log. below is the partition's newest epoch at or
// below the epoch of asked; the zero value if there is none.
func CheckPosition(partition ids.Partition, asked *historyv1.Position, below Epoch) error {
	if asked == nil || (below.Epoch == ids.Epoch(asked.GetEpoch()) && ids.Sequence(asked.GetSequence()) <= below.Last) {
		return nil
	}
	fork := &historyv1.Fork{Partition: uint32(partition), Asked: asked}
	if below.Epoch > 0 {
		fork.Last = &historyv1.Position{Epoch: uint64(below.Epoch), Sequence: uint64(below.Last)}
	}
	return &ForkError{fork}
}

// FeedPage collects a page of the feed.
type FeedPage struct {
	response historyv1.ReadFeedResponse
	limit    int
	size     int
}

// NewFeedPage begins a page of at most limit events, up to the partition's watermark.
func NewFeedPage(limit int, watermark *historyv1.Watermark) *FeedPage {
	page := &FeedPage{limit: limit}
	page.response.Watermark = &historyv1.Position{Epoch: watermark.GetEpoch(), Sequence: watermark.GetSequence()}
	return page
}

// Ranges returns the ranges from which the page is read, in order: the partition's epochs from the epoch of after to the
// epoch of the watermark. The current epoch is read up to the watermark.
func (p *FeedPage) Ranges(after *historyv1.Position, epochs []Epoch) []FeedRange {
	ranges := make([]FeedRange, len(epochs))
	for i, epoch := range epochs {
		ranges[i] = FeedRange{EpochID: epoch.ID, Epoch: epoch.Epoch, Through: math.MaxInt64}
		if epoch.Epoch == ids.Epoch(after.GetEpoch()) {
			ranges[i].Above = ids.Sequence(after.GetSequence())
		}
		if epoch.Epoch == ids.Epoch(p.response.GetWatermark().GetEpoch()) {
			ranges[i].Through = ids.Sequence(p.response.GetWatermark().GetSequence())
		}
	}
	return ranges
}

// FeedRange is a range of sequences of one epoch: above Above, up to and including Through.
type FeedRange struct {
	EpochID        int64
	Epoch          ids.Epoch
	Above, Through ids.Sequence
}

// Rows returns the number of rows to read next: one more than the events that still fit; 0 if the page is full.
func (p *FeedPage) Rows() int {
	if p.response.GetMore() {
		return 0
	}
	return p.limit - len(p.response.GetEntries()) + 1
}

// Take adds an event; size is the size of its stored body. It returns false if the page is full; then more events follow.
func (p *FeedPage) Take(entry *historyv1.FeedEntry, size int) bool {
	if len(p.response.GetEntries()) >= p.limit || p.size >= MaxPageBytes {
		p.response.More = true
		return false
	}
	p.size += size + eventOverhead
	if BugFeedSkips && entry.GetPosition().GetSequence()%20 == 19 {
		return true
	}
	p.response.Entries = append(p.response.Entries, entry)
	return true
}

// UnlessGap ends the page before a gap. It returns an error only if the page would begin at the gap.
func (p *FeedPage) UnlessGap(err error) error {
	var gap *GapError
	if errors.As(err, &gap) && len(p.response.GetEntries()) > 0 {
		p.response.More = true
		return nil
	}
	return err
}

// Response returns the page as a response.
func (p *FeedPage) Response() *historyv1.ReadFeedResponse { return &p.response }

// ComparePositions orders positions; nil comes before all others.
func ComparePositions(a, b interface {
	GetEpoch() uint64
	GetSequence() uint64
},
) int {
	return cmp.Or(cmp.Compare(a.GetEpoch(), b.GetEpoch()), cmp.Compare(a.GetSequence(), b.GetSequence()))
}
