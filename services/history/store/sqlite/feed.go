package sqlite

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/runnelhq/runnel/pkg/ids"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

// feedReads read the feed.
type feedReads struct {
	epoch, epochs, page, cursors *sql.Stmt
}

func (s *feedReads) prepare(p *preparer) {
	// The current epoch ends at the watermark.
	s.epoch = p.stmt(`SELECT p.stream, p.epoch, p.sequence, p.time_ns, e.id, e.epoch, coalesce(e.last_sequence, p.sequence) FROM partitions AS p
		LEFT JOIN epochs AS e ON e.partition = p.partition AND e.epoch = (SELECT max(epoch) FROM epochs WHERE partition = ?1 AND epoch <= (?2 + 0))
		WHERE p.partition = ?1`)
	s.epochs = p.stmt("SELECT id, epoch FROM epochs WHERE partition = ? AND epoch BETWEEN (? + 0) AND (? + 0) ORDER BY epoch")
	s.page = p.stmt("SELECT " + eventColumns + ", " + previousHash + `, e.sequence FROM events AS e
		WHERE e.epoch_id = ? AND e.sequence > (? + 0) AND e.sequence <= (? + 0) ORDER BY e.sequence LIMIT (? + 0)`)
	s.cursors = p.stmt("SELECT partition, epoch, sequence FROM feed_cursors WHERE reader = ? ORDER BY partition")
}

// ReadFeed first reads the watermark, and then the events up to it. Therefore its queries give the same result as one
// snapshot.
func (s *Store) ReadFeed(ctx context.Context, partition ids.Partition, after *historyv1.Position, limit int) (*historyv1.ReadFeedResponse, error) {
	tried := fmt.Sprintf("read the feed of partition %d", partition)
	watermark, id, epoch, last := &historyv1.Watermark{}, sql.NullInt64{}, sql.NullInt64{}, sql.NullInt64{}
	err := s.read.feed.epoch.QueryRowContext(ctx, uint32(partition), int64(after.GetEpoch())).
		Scan(&watermark.Stream, &watermark.Epoch, &watermark.Sequence, &watermark.TimeNs, &id, &epoch, &last)
	epochs := []store.Epoch{{ID: id.Int64, Epoch: ids.Epoch(epoch.Int64), Last: ids.Sequence(last.Int64)}}
	if err == nil {
		err = store.CheckPosition(partition, after, epochs[0])
	}
	if err == nil && (after == nil || after.GetEpoch() != watermark.GetEpoch()) {
		epochs, err = s.epochs(ctx, partition, ids.Epoch(after.GetEpoch()), ids.Epoch(watermark.GetEpoch()))
	}
	if err != nil {
		return nil, answer(tried, err)
	}
	page := store.NewFeedPage(limit, watermark)
	for _, part := range page.Ranges(after, epochs) {
		if page.Rows() == 0 || err != nil {
			break
		}
		err = page.UnlessGap(each(ctx, s.read.feed.page, func(rows *sql.Rows) (bool, error) {
			entry := &historyv1.FeedEntry{Position: &historyv1.Position{Epoch: uint64(part.Epoch)}}
			found, err := scanLinked(rows, &entry.Position.Sequence)
			entry.Event = found.event
			return err == nil && page.Take(entry, found.size), err
		}, part.EpochID, int64(part.Above), int64(part.Through), page.Rows()))
	}
	return page.Response(), answer(tried, err)
}

// epochs lists the epochs of a partition from first to last.
func (s *Store) epochs(ctx context.Context, partition ids.Partition, first, last ids.Epoch) (epochs []store.Epoch, err error) {
	err = each(ctx, s.read.feed.epochs, func(rows *sql.Rows) (bool, error) {
		epoch := store.Epoch{}
		err := rows.Scan(&epoch.ID, (*uint64)(&epoch.Epoch))
		epochs = append(epochs, epoch)
		return true, err
	}, uint32(partition), int64(first), int64(last))
	return epochs, err
}

// FeedBell returns the bell of a partition. Appends of this process ring it.
func (s *Store) FeedBell(partition ids.Partition) <-chan struct{} { return s.bells.Bell(partition) }

// FeedCursors returns the cursors of a reader.
func (s *Store) FeedCursors(ctx context.Context, reader string) ([]*historyv1.FeedCursor, error) {
	var cursors []*historyv1.FeedCursor
	err := each(ctx, s.read.feed.cursors, func(rows *sql.Rows) (bool, error) {
		cursor := &historyv1.FeedCursor{Position: &historyv1.Position{}}
		cursors = append(cursors, cursor)
		return true, rows.Scan(&cursor.Partition, &cursor.Position.Epoch, &cursor.Position.Sequence)
	}, reader)
	return cursors, wrap("read feed cursors", err)
}

// SaveFeedCursor stores the cursor of a reader.
func (s *Store) SaveFeedCursor(ctx context.Context, reader string, cursor *historyv1.FeedCursor) error {
	return wrap("save a feed cursor", s.writer.do(ctx, func(ctx context.Context, w *writer) error {
		_, err := w.statements.feedCursor.ExecContext(ctx, reader, cursor.GetPartition(), int64(cursor.GetPosition().GetEpoch()), int64(cursor.GetPosition().GetSequence()))
		return err
	}, nil))
}

// Refusals returns a page of the refusals of a partition.
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
