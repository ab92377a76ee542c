package torture

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/google/uuid"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/ids"
)

// Content is the content of the database at one moment.
type Content struct {
	// Logs contains all events of each conversation, in the order in which the database returns them by seq.
	Logs map[string][]*conversationv1.Event
	// Heads contains the heads stored in the conversations' own rows.
	Heads map[string]Head
	// Views contains the rows of each conversation besides its log.
	Views map[string]*Views
	// Stays contains all memberships by conversation, including past ones.
	Stays map[string][]Stay
	// Places contains the positions of all events by partition, epoch and sequence.
	Places []Place
	// Regressions describes watermarks that moved back.
	Regressions []string
	// DeadLetters describes commands that became dead letters.
	DeadLetters []string
}

// Head is the head of a conversation.
type Head struct {
	Seq  uint64
	Hash []byte
	// Position is the position of the event at Seq.
	Position Position
}

// Views contains the rows of one conversation that can be computed from its log.
type Views struct {
	Name string
	// Members contains the seqs at which the memberships of the present members began.
	Members map[ids.User]ids.Seq
	// Messages contains the view rows by the seq of the message.
	Messages  map[uint64]*historyv1.MessageRow
	Reactions map[Reaction]uint64
}

// Reaction identifies a reaction. It is the key for the seq of the event that added the reaction.
type Reaction struct {
	Target      uint64
	User, Emoji string
}

func newViews() *Views {
	return &Views{Members: map[ids.User]ids.Seq{}, Messages: map[uint64]*historyv1.MessageRow{}, Reactions: map[Reaction]uint64{}}
}

// Position is the place of a command in a partition's stream.
type Position struct{ Epoch, Sequence uint64 }

func (p Position) String() string { return fmt.Sprintf("(%d, %d)", p.Epoch, p.Sequence) }

// Place is the position of one event in its partition.
type Place struct {
	Partition uint32
	Position  Position
	// Conversation and Seq identify the event.
	Conversation string
	Seq          uint64
}

// of returns the views of a conversation, and creates them if needed.
func (c Content) of(conversation string) *Views {
	views := c.Views[conversation]
	if views == nil {
		views = newViews()
		if c.Views != nil {
			c.Views[conversation] = views
		}
	}
	return views
}

// reading reads the whole database or one conversation.
type reading struct {
	db interface {
		QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	}
	// where is the condition that is added to queries of tables with a column conversation_id.
	where string
	args  []any
}

// content reads all tables.
func (r reading) content(ctx context.Context) (Content, error) {
	c := Content{Logs: map[string][]*conversationv1.Event{}, Heads: map[string]Head{}, Views: map[string]*Views{}, Stays: map[string][]Stay{}}
	for _, read := range []func(context.Context, *Content) error{r.conversations, r.events, r.places, r.members, r.messages, r.reactions, r.deadLetters} {
		if err := read(ctx, &c); err != nil {
			return c, err
		}
	}
	return c, nil
}

func (r reading) conversations(ctx context.Context, c *Content) error {
	return r.each(ctx, "SELECT conversation_id, name, head, head_hash, epoch, sequence FROM conversations"+r.where, func(scan func(...any) error) error {
		var id, name string
		var head Head
		err := scan(&id, &name, &head.Seq, &head.Hash, &head.Position.Epoch, &head.Position.Sequence)
		c.Heads[id], c.of(id).Name = head, name
		return err
	}, r.args...)
}

func (r reading) events(ctx context.Context, c *Content) error {
	return r.each(ctx, `SELECT conversation_id, seq, time_ms, sender, command_id, kind, format, body, salt, commitment, hash, header_extra,
		lag(hash) OVER (PARTITION BY conversation_id ORDER BY seq)
		FROM events`+r.where+` ORDER BY conversation_id, seq`, func(scan func(...any) error) error {
		event := &conversationv1.Event{}
		var command uuid.UUID
		err := scan(&event.ConversationId, &event.Seq, &event.TimeMs, &event.Sender, &command, (*int32)(&event.Kind), &event.Format, &event.Body,
			&event.Salt, &event.Commitment, &event.Hash, &event.HeaderExtra, &event.PrevHash)
		if err != nil {
			return err
		}
		event.CommandId = command.String()
		if event.GetSeq() == 1 {
			event.PrevHash = chain.Zero
		}
		if len(event.GetCommitment()) == 0 && len(event.GetBody()) > 0 {
			// The commitment is stored only if it cannot be computed from salt and body.
			commitment := chain.Commitment(event.GetSalt(), event.GetBody())
			event.Commitment = commitment[:]
		}
		c.Logs[event.GetConversationId()] = append(c.Logs[event.GetConversationId()], event)
		return nil
	}, r.args...)
}

func (r reading) places(ctx context.Context, c *Content) error {
	return r.each(ctx, "SELECT partition, epoch, sequence, conversation_id, seq FROM events JOIN epochs ON epochs.id = epoch_id"+r.where+" ORDER BY partition, epoch, sequence, conversation_id, seq",
		func(scan func(...any) error) error {
			var place Place
			err := scan(&place.Partition, &place.Position.Epoch, &place.Position.Sequence, &place.Conversation, &place.Seq)
			c.Places = append(c.Places, place)
			return err
		}, r.args...)
}

func (r reading) members(ctx context.Context, c *Content) error {
	return r.each(ctx, `SELECT conversation_id, user_id, joined_seq, joined_epoch, joined_sequence,
		COALESCE(left_seq, 0), COALESCE(left_epoch, 0), COALESCE(left_sequence, 0) FROM memberships`+r.where, func(scan func(...any) error) error {
		var id string
		var stay Stay
		err := scan(&id, &stay.User, &stay.First, &stay.Began.Epoch, &stay.Began.Sequence, &stay.Last, &stay.Ended.Epoch, &stay.Ended.Sequence)
		c.Stays[id] = append(c.Stays[id], stay)
		if stay.Last == 0 {
			c.of(id).Members[ids.User(stay.User)] = ids.Seq(stay.First)
		}
		return err
	}, r.args...)
}

func (r reading) messages(ctx context.Context, c *Content) error {
	return r.each(ctx, "SELECT conversation_id, seq, edit_seq, edit_time_ms, deleted_seq, replies, last_reply_seq FROM message_views"+r.where, func(scan func(...any) error) error {
		var id string
		row := &historyv1.MessageRow{}
		err := scan(&id, &row.Seq, &row.EditSeq, &row.EditTimeMs, &row.DeletedSeq, &row.Replies, &row.LastReplySeq)
		c.of(id).Messages[row.GetSeq()] = row
		return err
	}, r.args...)
}

func (r reading) reactions(ctx context.Context, c *Content) error {
	return r.each(ctx, "SELECT conversation_id, target, user_id, emoji, seq FROM reactions"+r.where, func(scan func(...any) error) error {
		var id string
		var reaction Reaction
		var seq uint64
		err := scan(&id, &reaction.Target, &reaction.User, &reaction.Emoji, &seq)
		c.of(id).Reactions[reaction] = seq
		return err
	}, r.args...)
}

func (r reading) deadLetters(ctx context.Context, c *Content) error {
	if r.where != "" {
		return nil // these tables do not belong to a conversation
	}
	return r.each(ctx, "SELECT partition, reason FROM dead_letters", func(scan func(...any) error) error {
		var partition int
		var reason string
		err := scan(&partition, &reason)
		c.DeadLetters = append(c.DeadLetters, fmt.Sprintf("partition %d: %s", partition, reason))
		return err
	})
}

func (r reading) each(ctx context.Context, query string, row func(scan func(...any) error) error, args ...any) error {
	rows, err := r.db.QueryContext(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("read the database: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows.Scan); err != nil {
			return fmt.Errorf("read the database: %w", err)
		}
	}
	return rows.Err()
}
