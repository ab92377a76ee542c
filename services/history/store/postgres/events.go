package postgres

import (
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/runnelhq/runnel/pkg/chain"

	"github.com/runnelhq/runnel/services/history/store"
)

// fewRows is the number of rows up to which each has a statement of its own. A statement for many rows costs 40 to 50 µs of the
// server's CPU more than one for a single row.
const fewRows = 4

const (
	moveHead = `WITH moved AS (UPDATE conversations SET head = $2, head_hash = $3, epoch = $5, sequence = $6 WHERE conversation_id = $1 AND head = $4
		RETURNING 1)
		SELECT runnel_require(count(*) = 1, '` + requireHeads + `') FROM moved`
	moveHeads = `WITH moved AS (
		UPDATE conversations SET head = v.head, head_hash = v.hash, epoch = v.epoch, sequence = v.sequence
		FROM unnest($1::text[], $2::bigint[], $3::bytea[], $4::bigint[], $5::bigint[], $6::bigint[]) AS v (id, head, hash, before, epoch, sequence)
		WHERE conversation_id = v.id AND conversations.head = v.before RETURNING 1)
		SELECT runnel_require(count(*) = $7, '` + requireHeads + `') FROM moved`
	insertConversation = `INSERT INTO conversations (conversation_id, kind, name, name_seq, name_sender, name_time_ms, creator, head, head_hash,
		members, created_time_ms, epoch, sequence) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`
	insertEvent = `INSERT INTO events (conversation_id, seq, time_ms, sender, command_id, kind, body, salt, hash, sequence, epoch_id,
			format, commitment, header_extra, target)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, (SELECT id FROM epochs WHERE partition = $11 AND epoch = $12), $13, $14, $15, nullif($16::bigint, 0))`
	// epochIDs are the ids of the epochs of the appends, looked up once for a statement; an epoch that does not exist makes
	// NULL, which events refuse.
	epochIDs = `(SELECT array_agg((SELECT id FROM epochs WHERE partition = m.partition AND epoch = m.epoch) ORDER BY m.ordinality)
		FROM unnest($12::int[], $13::bigint[]) WITH ORDINALITY AS m (partition, epoch, ordinality))`
	// Most events are plain. Their statement leaves out the columns that only other events need.
	insertPlain = `INSERT INTO events (conversation_id, seq, time_ms, sender, command_id, kind, body, salt, hash, sequence, epoch_id, format)
		SELECT unnest($1::text[]), unnest($2::bigint[]), unnest($3::bigint[]), unnest($4::text[]), unnest($5::uuid[]), unnest($6::int[]),
			unnest($7::bytea[]), unnest($8::bytea[]), unnest($9::bytea[]), unnest($10::bigint[]), ` + epochIDs + `[unnest($11::int[])], $14`
	insertFull = `INSERT INTO events (conversation_id, seq, time_ms, sender, command_id, kind, body, salt, hash, sequence, epoch_id,
			format, commitment, header_extra, target)
		SELECT unnest($1::text[]), unnest($2::bigint[]), unnest($3::bigint[]), unnest($4::text[]), unnest($5::uuid[]), unnest($6::int[]),
			unnest($7::bytea[]), unnest($8::bytea[]), unnest($9::bytea[]), unnest($10::bigint[]), ` + epochIDs + `[unnest($11::int[])],
			unnest($14::smallint[]), unnest($15::bytea[]), unnest($16::bytea[]), nullif(unnest($17::bigint[]), 0)`
)

// queueConversations creates conversations and moves the heads of the others.
func queueConversations(sql *pgx.Batch, members []member) {
	n := 0
	for _, m := range members {
		n += len(m.Changes)
	}
	few := n <= fewRows
	conversations, hashes := make([]string, 0, n), make([][]byte, 0, n)
	numbers := make([]int64, 4*n)
	heads, befores, epochs, sequences := numbers[:0:n], numbers[n:n:2*n], numbers[2*n:2*n:3*n], numbers[3*n:3*n]
	for _, m := range members {
		for i := range m.Changes {
			change := &m.Changes[i]
			if change.Creates() {
				sql.Queue(insertConversation, string(change.ID), int32(change.Kind), change.Name.GetName(), change.Name.GetSeq(), change.Name.GetSender(),
					change.Name.GetTimeMs(), string(change.Creator), uint64(change.Last), change.Hash, change.Members, change.CreatedMs, uint64(m.epoch), uint64(change.Sequence))
				continue
			}
			if few {
				sql.Queue(moveHead, string(change.ID), int64(change.Last), change.Hash, int64(change.First-1), uint64(m.epoch), uint64(change.Sequence))
				continue
			}
			conversations, hashes = append(conversations, string(change.ID)), append(hashes, change.Hash)
			heads, befores = append(heads, int64(change.Last)), append(befores, int64(change.First-1))
			epochs, sequences = append(epochs, int64(m.epoch)), append(sequences, int64(change.Sequence))
		}
	}
	if len(conversations) > 0 {
		sql.Queue(moveHeads, conversations, heads, hashes, befores, epochs, sequences, len(conversations))
	}
}

// queueEvents inserts the events of all members, plain ones separately if there are others.
func queueEvents(sql *pgx.Batch, members []member) {
	plain, full := 0, 0
	for _, m := range members {
		for i := range m.Rows {
			if m.Rows[i].Plain() {
				plain++
			} else {
				full++
			}
		}
	}
	if plain+full <= fewRows {
		for _, m := range members {
			for i := range m.Rows {
				queueEvent(sql, m, &m.Rows[i])
			}
		}
		return
	}
	if plain > 0 {
		c := newColumns(plain)
		eachRow(members, func(index int, row *store.Row) {
			if row.Plain() {
				c.add(index, row)
			}
		})
		sql.Queue(insertPlain, append(c.args(members), chain.Format)...)
	}
	if full == 0 {
		return
	}
	c := newColumns(full)
	formats, targets := make([]int16, 0, full), make([]int64, 0, full)
	commitments, extras := make([][]byte, 0, full), make([][]byte, 0, full)
	eachRow(members, func(index int, row *store.Row) {
		if row.Plain() {
			return
		}
		c.add(index, row)
		formats, targets = append(formats, int16(row.GetFormat())), append(targets, int64(row.Target))
		commitments, extras = append(commitments, orNull(row.Commitment)), append(extras, orNull(row.GetHeaderExtra()))
	})
	sql.Queue(insertFull, append(c.args(members), formats, commitments, extras, targets)...)
}

func queueEvent(sql *pgx.Batch, m member, row *store.Row) {
	sql.Queue(insertEvent, row.GetConversationId(), row.GetSeq(), row.GetTimeMs(), row.GetSender(), pgtype.UUID{Bytes: row.CommandID, Valid: true},
		int32(row.GetKind()), orNull(row.GetBody()), orNull(row.GetSalt()), row.GetHash(), uint64(row.Sequence), m.GetPartition(), uint64(m.epoch),
		row.GetFormat(), orNull(row.Commitment), orNull(row.GetHeaderExtra()), int64(row.Target))
}

// eachRow calls add with each event and the index of its member.
func eachRow(members []member, add func(index int, row *store.Row)) {
	for index, m := range members {
		for i := range m.Rows {
			add(index, &m.Rows[i])
		}
	}
}

// columns contains the events, column by column.
type columns struct {
	conversations, senders []string
	commands               []pgtype.UUID
	seqs, times, sequences []int64
	kinds, members         []int32
	bodies, salts, hash    [][]byte
}

func newColumns(n int) *columns {
	return &columns{
		conversations: make([]string, 0, n), senders: make([]string, 0, n), commands: make([]pgtype.UUID, 0, n),
		seqs: make([]int64, 0, n), times: make([]int64, 0, n), sequences: make([]int64, 0, n), kinds: make([]int32, 0, n),
		members: make([]int32, 0, n), bodies: make([][]byte, 0, n), salts: make([][]byte, 0, n), hash: make([][]byte, 0, n),
	}
}

// add adds an event of the member with an index.
func (c *columns) add(index int, row *store.Row) {
	c.conversations, c.senders = append(c.conversations, row.GetConversationId()), append(c.senders, row.GetSender())
	c.commands = append(c.commands, pgtype.UUID{Bytes: row.CommandID, Valid: true})
	c.seqs, c.times, c.sequences = append(c.seqs, int64(row.GetSeq())), append(c.times, row.GetTimeMs()), append(c.sequences, int64(row.Sequence))
	c.kinds, c.members = append(c.kinds, int32(row.GetKind())), append(c.members, int32(index)+1) // arrays of SQL begin at 1
	c.bodies, c.salts = append(c.bodies, orNull(row.GetBody())), append(c.salts, orNull(row.GetSalt()))
	c.hash = append(c.hash, row.GetHash())
}

func (c *columns) args(members []member) []any {
	partitions, epochs := make([]int32, len(members)), make([]int64, len(members))
	for i, m := range members {
		partitions[i], epochs[i] = int32(m.GetPartition()), int64(m.epoch)
	}
	return []any{
		c.conversations, c.seqs, c.times, c.senders, c.commands, c.kinds, c.bodies, c.salts, c.hash, c.sequences, c.members, partitions, epochs,
	}
}
