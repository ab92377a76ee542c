package history

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/runnelhq/runnel/pkg/ids"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

// ReadFeed returns committed events of a partition after a position. If there are none, it waits for the next append, and
// reads again at least every store.FeedRecheck. While it waits, it holds no connection to the database.
func (s *Server) ReadFeed(ctx context.Context, request *historyv1.ReadFeedRequest) (*historyv1.ReadFeedResponse, error) {
	waiting := time.NewTimer(time.Duration(request.GetWaitMs()) * time.Millisecond)
	defer waiting.Stop()
	invalid := s.checkReadFeed(request)
	for {
		var bell <-chan struct{}
		page, err := do(ctx, s, s.metrics.readFeed, invalid, func(ctx context.Context) (*historyv1.ReadFeedResponse, error) {
			if request.GetWaitMs() > 0 {
				bell = s.store.FeedBell(ids.Partition(request.GetPartition())) // taken before reading, so that no append between both is missed
			}
			return s.store.ReadFeed(ctx, ids.Partition(request.GetPartition()), request.GetAfter(), store.Limit(request.GetLimit()))
		})
		if err != nil || len(page.GetEntries()) > 0 || request.GetWaitMs() == 0 {
			for _, entry := range page.GetEntries() {
				s.reportDamage(ctx, entry.GetEvent())
			}
			return page, err
		}
		again, err := s.await(ctx, bell, waiting.C)
		if err != nil {
			return nil, s.refuse(ctx, s.metrics.readFeed, err)
		}
		if !again {
			return page, nil
		}
	}
}

// await returns true if it is time to read again, and false if the wait is over.
func (s *Server) await(ctx context.Context, bell <-chan struct{}, end <-chan time.Time) (bool, error) {
	recheck := time.NewTimer(s.recheck)
	defer recheck.Stop()
	select {
	case <-bell:
		return true, nil
	case <-recheck.C:
		return true, nil
	case <-end:
		return false, nil
	case <-s.closing:
		return false, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// GetFeedCursors returns the cursors of a reader.
func (s *Server) GetFeedCursors(ctx context.Context, request *historyv1.GetFeedCursorsRequest) (*historyv1.GetFeedCursorsResponse, error) {
	return do(ctx, s, s.metrics.getFeedCursors, checkReader(request.GetReader()), func(ctx context.Context) (*historyv1.GetFeedCursorsResponse, error) {
		cursors, err := s.store.FeedCursors(ctx, request.GetReader())
		return &historyv1.GetFeedCursorsResponse{Cursors: cursors}, err
	})
}

// SaveFeedCursor stores the cursor of a reader.
func (s *Server) SaveFeedCursor(ctx context.Context, request *historyv1.SaveFeedCursorRequest) (*historyv1.SaveFeedCursorResponse, error) {
	cursor := request.GetCursor()
	invalid := errors.Join(checkReader(request.GetReader()), s.checkPartition("cursor.partition", ids.Partition(cursor.GetPartition())), checkPosition("cursor.position", cursor.GetPosition()))
	return do(ctx, s, s.metrics.saveFeedCursor, invalid, func(ctx context.Context) (*historyv1.SaveFeedCursorResponse, error) {
		return &historyv1.SaveFeedCursorResponse{}, s.store.SaveFeedCursor(ctx, request.GetReader(), cursor)
	})
}

func (s *Server) checkReadFeed(request *historyv1.ReadFeedRequest) error {
	if err := s.checkPartition("partition", ids.Partition(request.GetPartition())); err != nil {
		return err
	}
	if err := checkPosition("after", request.GetAfter()); err != nil {
		return err
	}
	if request.GetWaitMs() > maxWaitMs {
		return store.Invalid("wait_ms", "must be at most %d", maxWaitMs)
	}
	return checkLimit(request.GetLimit())
}

func checkPosition(field string, position *historyv1.Position) error {
	if max(position.GetEpoch(), position.GetSequence()) > maxNumber {
		return store.Invalid(field, "must be at most 2^63-1")
	}
	return nil
}

func checkReader(reader string) error {
	allowed := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_.-", r)
	}
	if reader == "" || len(reader) > maxReaderBytes || strings.TrimFunc(reader, allowed) != "" {
		return store.Invalid("reader", "must be 1 to %d characters A-Z a-z 0-9 _ . -", maxReaderBytes)
	}
	return nil
}
