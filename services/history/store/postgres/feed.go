package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/runnelhq/runnel/pkg/ids"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

const (
	// The current epoch ends at the watermark.
	selectEpoch = `SELECT p.stream, p.epoch, p.sequence, p.time_ns, e.id, e.epoch, coalesce(e.last_sequence, p.sequence) FROM partitions AS p
		LEFT JOIN epochs AS e ON e.partition = p.partition AND e.epoch = (SELECT max(epoch) FROM epochs WHERE partition = $1 AND epoch <= $2)
		WHERE p.partition = $1`
	selectEpochs = "SELECT id, epoch FROM epochs WHERE partition = $1 AND epoch BETWEEN $2 AND $3 ORDER BY epoch"
	selectFeed   = "SELECT events.sequence, " + previousHash + ", " + eventColumns + ` FROM events
		WHERE events.epoch_id = $1 AND events.sequence > $2 AND events.sequence <= $3 ORDER BY events.epoch_id, events.sequence LIMIT $4`
	selectFeedCursors = "SELECT partition, epoch, sequence FROM feed_cursors WHERE reader = $1 ORDER BY partition"
	saveFeedCursor    = `INSERT INTO feed_cursors (reader, partition, epoch, sequence) VALUES ($1, $2, $3, $4)
		ON CONFLICT (reader, partition) DO UPDATE SET epoch = excluded.epoch, sequence = excluded.sequence`
	selectRefusals = `SELECT conversation_id, sender, command_id::text, attempt, commitment, code, message, field, time_ms FROM refusals
		WHERE partition = $1 AND (conversation_id, sender, command_id) > ($2, $3, $4::uuid) ORDER BY partition, conversation_id, sender, command_id LIMIT $5`
)

// ReadFeed first reads the watermark, and then the events up to it. Therefore its queries give the same result as one
// snapshot.
func (s *Store) ReadFeed(ctx context.Context, partition ids.Partition, after *historyv1.Position, limit int) (*historyv1.ReadFeedResponse, error) {
	var page *store.FeedPage
	err := s.pool.reading(ctx, func(conn *pgxpool.Conn) error {
		watermark, id, epoch, last := &historyv1.Watermark{}, pgtype.Int8{}, pgtype.Int8{}, pgtype.Int8{}
		err := conn.QueryRow(ctx, selectEpoch, uint32(partition), after.GetEpoch()).
			Scan(&watermark.Stream, &watermark.Epoch, &watermark.Sequence, &watermark.TimeNs, &id, &epoch, &last)
		epochs := []store.Epoch{{ID: id.Int64, Epoch: ids.Epoch(epoch.Int64), Last: ids.Sequence(last.Int64)}}
		if err == nil {
			err = store.CheckPosition(partition, after, epochs[0])
		}
		if err == nil && (after == nil || after.GetEpoch() != watermark.GetEpoch()) {
			epochs, err = epochsOf(ctx, conn, partition, ids.Epoch(after.GetEpoch()), ids.Epoch(watermark.GetEpoch()))
		}
		if err != nil {
			return err
		}
		page = store.NewFeedPage(limit, watermark)
		for _, part := range page.Ranges(after, epochs) {
			if page.Rows() == 0 || err != nil {
				break
			}
			err = page.UnlessGap(each(ctx, conn, func(rows pgx.Rows) (bool, error) {
				entry := &historyv1.FeedEntry{Position: &historyv1.Position{Epoch: uint64(part.Epoch)}}
				found, err := scanLinked(rows, &entry.Position.Sequence)
				entry.Event = found.event
				return err == nil && page.Take(entry, found.size), err
			}, selectFeed, part.EpochID, uint64(part.Above), uint64(part.Through), page.Rows()))
		}
		return err
	})
	if err != nil {
		return nil, answer(fmt.Sprintf("read the feed of partition %d", partition), err)
	}
	return page.Response(), nil
}

// epochsOf lists the epochs of a partition from first to last.
func epochsOf(ctx context.Context, conn querier, partition ids.Partition, first, last ids.Epoch) (epochs []store.Epoch, err error) {
	err = each(ctx, conn, func(rows pgx.Rows) (bool, error) {
		epoch := store.Epoch{}
		err := rows.Scan(&epoch.ID, (*uint64)(&epoch.Epoch))
		epochs = append(epochs, epoch)
		return true, err
	}, selectEpochs, uint32(partition), uint64(first), uint64(last))
	return epochs, err
}

// FeedCursors returns the cursors of a reader.
func (s *Store) FeedCursors(ctx context.Context, reader string) ([]*historyv1.FeedCursor, error) {
	var cursors []*historyv1.FeedCursor
	err := s.each(ctx, s.pool.reading, func(rows pgx.Rows) (bool, error) {
		cursor := &historyv1.FeedCursor{Position: &historyv1.Position{}}
		cursors = append(cursors, cursor)
		return true, rows.Scan(&cursor.Partition, &cursor.Position.Epoch, &cursor.Position.Sequence)
	}, selectFeedCursors, reader)
	return cursors, wrap("read feed cursors", err)
}

// SaveFeedCursor stores the cursor of a reader.
func (s *Store) SaveFeedCursor(ctx context.Context, reader string, cursor *historyv1.FeedCursor) error {
	err := s.pool.working(ctx, func(conn *pgxpool.Conn) error {
		_, err := conn.Exec(ctx, saveFeedCursor, reader, cursor.GetPartition(), cursor.GetPosition().GetEpoch(), cursor.GetPosition().GetSequence())
		return err
	})
	return wrap("save a feed cursor", err)
}

// Refusals returns a page of the refusals of a partition.
func (s *Store) Refusals(ctx context.Context, request *historyv1.ListRefusalsRequest) (*historyv1.ListRefusalsResponse, error) {
	limit := store.Limit(request.GetLimit())
	response := &historyv1.ListRefusalsResponse{}
	after := request.GetAfter()
	command, _ := store.DecodeCommandID(after.GetCommandId())
	err := s.each(ctx, s.pool.working, func(rows pgx.Rows) (bool, error) {
		if response.More = len(response.GetRefusals()) == limit; response.GetMore() {
			return false, nil
		}
		refusal, code := &historyv1.Refusal{Command: &historyv1.CommandKey{}, Error: &conversationv1.Error{}}, int32(0)
		err := rows.Scan(&refusal.Command.ConversationId, &refusal.Command.Sender, &refusal.Command.CommandId, &refusal.Attempt, &refusal.Commitment,
			&code, &refusal.Error.Message, &refusal.Error.Field, &refusal.TimeMs)
		refusal.Error.Code = conversationv1.ErrorCode(code)
		response.Refusals = append(response.Refusals, refusal)
		return true, err
	}, selectRefusals, request.GetPartition(), after.GetConversationId(), after.GetSender(), pgtype.UUID{Bytes: command, Valid: true}, limit+1)
	return response, wrap("list refusals", err)
}
