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
	// Logs are all events of each conversation by rising seq, as far as the database's order goes.
	Logs map[string][]*conversationv1.Event
	// Heads are the heads in the conversations' own rows.
	Heads map[string]Head
	// Views are the rows beside the logs.
	Views map[string]*Views
	// Stays are all memberships by conversation, past ones included.
	Stays map[string][]Stay
	// Places are the positions of all events by partition, epoch and sequence.
	Places []Place
	// Regressions are watermarks that moved back.
	Regressions []string
	// DeadLetters are commands that were put aside.
	DeadLetters []string
}

// Head is the head of a conversation.
type Head struct {
	Seq  uint64
	Hash []byte
	// Position is that of the event at Seq.
	Position Position
}

// Views are the rows of one conversation that follow from its log.
type Views struct {
	Name string
	// Members are the seqs at which the present members became members.
	Members map[ids.User]ids.Seq
	// Messages are the view rows by the seq of the message.
	Messages  map[uint64]*historyv1.MessageRow
	Reactions map[Reaction]uint64
}

// Reaction names a reaction; it stands for the seq of the event that added it.
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

// Place says at which position of which partition an event is.
type Place struct {
	Partition uint32
	Position  Position
	// Conversation and Seq name the event.
	Conversation string
	Seq          uint64
}

// of returns the views of a conversation, and creates them if necessary.
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

// reading reads the database or one conversation of it.
type reading struct {
	db interface {
		QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	}
	// where is added to queries of tables with a column conversation_id.
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
			// It is stored only when it does not follow from salt and body.
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
		return nil // they are of no conversation
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
