package torture

import (
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/e2e/launch"
)

const (
	// feedReader is the reader name of the cursors.
	feedReader = "torture"
	feedPage   = 50
	// feedWait is how long one call waits for the next event. feedTimeout is the time limit of a call. feedPause is the
	// wait after a failed call.
	feedWait    = time.Second
	feedTimeout = 3 * time.Second
	feedPause   = 100 * time.Millisecond
	// feedLife is the longest time that a reader runs before it loses its unsaved position.
	feedLife = 4 * time.Second
)

// feed is a reader of the feed of each partition, like an indexer. It keeps only its cursor, which is in the store. From
// time to time it dies, sometimes between reading events and saving its cursor, and continues from the saved cursor.
//
//	load cursor ──▶ read ──▶ note ──▶ save cursor ──▶ read …        dies: load cursor
//	                 └ fork: noted, save the last common position ─┘
type feed struct {
	record    *Record
	histories []historyv1.HistoryServiceClient
	close     func()
}

func newFeed(record *Record, histories []*launch.Process) (*feed, error) {
	f := &feed{record: record, close: func() {}}
	for _, p := range histories {
		conn, err := grpc.NewClient("passthrough:///"+p.Flag("rpc.listen"), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			f.close()
			return nil, fmt.Errorf("reach %s: %w", p.Name(), err)
		}
		before := f.close
		f.close = func() { _ = conn.Close(); before() }
		f.histories = append(f.histories, historyv1.NewHistoryServiceClient(conn))
	}
	return f, nil
}

// run reads the feed of one partition until ctx ends.
func (f *feed) run(ctx context.Context, partition uint32, random *rand.Rand) {
	for ctx.Err() == nil {
		life, cancel := context.WithTimeout(ctx, time.Duration(random.Int64N(int64(feedLife))))
		_ = f.live(life, partition, random, false) // the service is down, or the reader has died
		cancel()
		_ = launch.Sleep(ctx, feedPause)
	}
}

// catchUp reads the feeds of all partitions to the end. All calls must succeed.
func (f *feed) catchUp(ctx context.Context, partitions uint32) {
	ctx, cancel := context.WithTimeout(ctx, live)
	defer cancel()
	random := rand.New(rand.NewPCG(1, 1))
	for partition := range partitions {
		if err := f.live(ctx, partition, random, true); err != nil {
			f.record.Violated(violation("I12", "the feed of partition %d cannot be read to its end: %v", partition, err))
		}
	}
}

// live runs the reader until it dies. If finish is set, it ends when it has read all events.
func (f *feed) live(ctx context.Context, partition uint32, random *rand.Rand, finish bool) error {
	history := pick(random, f.histories...)
	after, err := f.cursor(ctx, history, partition)
	if err != nil {
		return err
	}
	request := &historyv1.ReadFeedRequest{Partition: partition, Limit: feedPage}
	if !finish {
		request.WaitMs = uint32(feedWait.Milliseconds())
	}
	for {
		request.After = after
		page, err := f.read(ctx, history, request)
		if fork := forkOf(err); fork != nil {
			f.record.Forked()
			after = fork.GetLast()
			if err := f.save(ctx, history, partition, after); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		after = f.take(partition, after, page)
		if err := f.save(ctx, history, partition, after); err != nil {
			return err
		}
		if finish && !page.GetMore() && len(page.GetEntries()) == 0 {
			return nil
		}
	}
}

// take records a page, and returns the position to continue from.
func (f *feed) take(partition uint32, after *historyv1.Position, page *historyv1.ReadFeedResponse) *historyv1.Position {
	for _, entry := range page.GetEntries() {
		if after != nil && !below(after, entry.GetPosition()) {
			f.record.Violated(violation("I12", "the feed of partition %d gave %v after %v", partition, entry.GetPosition(), after))
		}
		after = entry.GetPosition()
		event := entry.GetEvent()
		f.record.Fed(partition, Fed{
			Position: Position{after.GetEpoch(), after.GetSequence()}, Conversation: event.GetConversationId(), Seq: event.GetSeq(), Hash: hex.EncodeToString(event.GetHash()),
		})
	}
	// If the page is the last one, all events up to the watermark were seen.
	if mark := page.GetWatermark(); !page.GetMore() && mark.GetEpoch() > 0 && (after == nil || below(after, mark)) {
		after = mark
	}
	return after
}

func below(a, b *historyv1.Position) bool {
	return a.GetEpoch() < b.GetEpoch() || (a.GetEpoch() == b.GetEpoch() && a.GetSequence() < b.GetSequence())
}

func (f *feed) cursor(ctx context.Context, history historyv1.HistoryServiceClient, partition uint32) (*historyv1.Position, error) {
	ctx, cancel := context.WithTimeout(ctx, feedTimeout)
	defer cancel()
	cursors, err := history.GetFeedCursors(ctx, &historyv1.GetFeedCursorsRequest{Reader: feedReader})
	for _, cursor := range cursors.GetCursors() {
		if cursor.GetPartition() == partition {
			return cursor.GetPosition(), err
		}
	}
	return nil, err
}

func (f *feed) read(ctx context.Context, history historyv1.HistoryServiceClient, request *historyv1.ReadFeedRequest) (*historyv1.ReadFeedResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, feedTimeout)
	defer cancel()
	return history.ReadFeed(ctx, request)
}

// save stores the reader's position. The beginning of the feed cannot be stored; the reader then receives the fork again
// in its next life.
func (f *feed) save(ctx context.Context, history historyv1.HistoryServiceClient, partition uint32, position *historyv1.Position) error {
	if position == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, feedTimeout)
	defer cancel()
	_, err := history.SaveFeedCursor(ctx, &historyv1.SaveFeedCursorRequest{
		Reader: feedReader, Cursor: &historyv1.FeedCursor{Partition: partition, Position: position},
	})
	return err
}

// forkOf returns the fork in an error's details; nil if there is none.
func forkOf(err error) *historyv1.Fork {
	if err == nil {
		return nil
	}
	for _, detail := range status.Convert(err).Details() {
		if fork, ok := detail.(*historyv1.Fork); ok {
			return fork
		}
	}
	return nil
}
