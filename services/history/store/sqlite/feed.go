package sqlite

import (
	"context"
	"database/sql"
	"fmt"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

// feedReads read the feed.
type feedReads struct {
	epoch, page, cursors *sql.Stmt
}

func (s *feedReads) prepare(p *preparer) {
	// The present epoch ends at the watermark.
	s.epoch = p.stmt(`SELECT p.stream, p.epoch, p.sequence, p.time_ns, e.epoch, coalesce(e.last_sequence, p.sequence) FROM partitions AS p
		LEFT JOIN epochs AS e ON e.partition = p.partition AND e.epoch = (SELECT max(epoch) FROM epochs WHERE partition = ?1 AND epoch <= (?2 + 0))
		WHERE p.partition = ?1`)
	s.page = p.stmt("SELECT " + eventColumns + ", " + previousHash + `, e.epoch, e.sequence FROM events AS e
		WHERE e.partition = ? AND (e.epoch, e.sequence) > (?, ?) AND (e.epoch, e.sequence) <= (?, ?) ORDER BY e.epoch, e.sequence LIMIT (? + 0)`)
	s.cursors = p.stmt("SELECT partition, epoch, sequence FROM feed_cursors WHERE reader = ? ORDER BY partition")
}

// ReadFeed reads up to the watermark that it found first, so that two queries do for one snapshot.
func (s *Store) ReadFeed(ctx context.Context, partition uint32, after *historyv1.Position, limit int) (*historyv1.ReadFeedResponse, error) {
	tried := fmt.Sprintf("read the feed of partition %d", partition)
	watermark, epoch, last := &historyv1.Watermark{}, sql.NullInt64{}, sql.NullInt64{}
	err := s.read.feed.epoch.QueryRowContext(ctx, partition, int64(after.GetEpoch())).
		Scan(&watermark.Stream, &watermark.Epoch, &watermark.Sequence, &watermark.TimeNs, &epoch, &last)
	if err == nil {
		err = store.CheckPosition(partition, after, store.Epoch{Epoch: uint64(epoch.Int64), Last: uint64(last.Int64)})
	}
	if err != nil {
		return nil, answer(tried, err)
	}
	page := store.NewFeedPage(limit, watermark)
	err = each(ctx, s.read.feed.page, func(rows *sql.Rows) (bool, error) {
		entry := &historyv1.FeedEntry{Position: &historyv1.Position{}}
		found, err := scanLinked(rows, &entry.Position.Epoch, &entry.Position.Sequence)
		entry.Event = found.event
		return err == nil && page.Take(entry, found.size), err
	}, partition, int64(after.GetEpoch()), int64(after.GetSequence()), int64(watermark.GetEpoch()), int64(watermark.GetSequence()), limit+1)
	return page.Response(), answer(tried, page.UnlessGap(err))
}

// FeedBell is rung by the appends of this process.
func (s *Store) FeedBell(partition uint32) <-chan struct{} { return s.bells.Bell(partition) }

// FeedCursors gives how far a reader is.
func (s *Store) FeedCursors(ctx context.Context, reader string) ([]*historyv1.FeedCursor, error) {
	var cursors []*historyv1.FeedCursor
	err := each(ctx, s.read.feed.cursors, func(rows *sql.Rows) (bool, error) {
		cursor := &historyv1.FeedCursor{Position: &historyv1.Position{}}
		cursors = append(cursors, cursor)
		return true, rows.Scan(&cursor.Partition, &cursor.Position.Epoch, &cursor.Position.Sequence)
	}, reader)
	return cursors, wrap("read feed cursors", err)
}

// SaveFeedCursor stores how far a reader is.
func (s *Store) SaveFeedCursor(ctx context.Context, reader string, cursor *historyv1.FeedCursor) error {
	return wrap("save a feed cursor", s.writer.do(ctx, func(ctx context.Context, w *writer) error {
		_, err := w.statements.feedCursor.ExecContext(ctx, reader, cursor.GetPartition(), int64(cursor.GetPosition().GetEpoch()), int64(cursor.GetPosition().GetSequence()))
		return err
	}, nil))
}

// Refusals gives a page of the refusals of a partition.
func (s *Store) Refusals(ctx context.Context, request *historyv1.ListRefusalsRequest) (*historyv1.ListRefusalsResponse, error) {
	limit := store.Limit(request.GetLimit())
	response := &historyv1.ListRefusalsResponse{}
	after := request.GetAfter()
	command, _ := store.DecodeCommandID(after.GetCommandId())
	err := each(ctx, s.read.other.refusals, func(rows *sql.Rows) (bool, error) {
		if response.More = len(response.GetRefusals()) == limit; response.GetMore() {
			return false, nil
		}
		refusal, id := newRefusal(), []byte(nil)
		err := rows.Scan(&refusal.Command.ConversationId, &refusal.Command.Sender, &id, &refusal.Attempt, &refusal.Commitment,
			&refusal.Error.Code, &refusal.Error.Message, &refusal.Error.Field, &refusal.TimeMs)
		refusal.Command.CommandId = store.EncodeCommandID(id)
		response.Refusals = append(response.Refusals, refusal)
		return true, err
	}, request.GetPartition(), after.GetConversationId(), after.GetSender(), command[:], limit+1)
	return response, wrap("list refusals", err)
}
