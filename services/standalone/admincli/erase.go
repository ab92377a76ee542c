package admincli

import (
	"context"
	"time"

	"github.com/google/uuid"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

type erase struct {
	ID        string   `arg:"" help:"Id of the conversation."`
	Seq       []uint64 `help:"Erase the events with these seqs." placeholder:"SEQ,..."`
	Sender    string   `help:"Erase all events of this user." placeholder:"USER"`
	Before    string   `help:"Erase all events from before this time: 2026-01-31, or 2026-01-31T12:00:00Z." placeholder:"TIME"`
	CommandID string   `help:"Command id of an erasure whose outcome is unknown, to send it again." placeholder:"UUID"`
	Yes       bool     `help:"Confirm that this cannot be undone."`
}

func (*erase) Help() string {
	return `Content is removed from the store for good. The log keeps the place of each event and its hash, so it can still be verified, and
a separate event records what was erased. Joins and leaves are kept. Copies in the streams expire within --nats.max-age,
copies in backups when the backup is replaced.

  runnel admin erase g1a2b3c4d5e6f7g8h9i0j1k2l3m --seq 17,42 --yes
  runnel admin erase g1a2b3c4d5e6f7g8h9i0j1k2l3m --sender bob --yes
  runnel admin erase g1a2b3c4d5e6f7g8h9i0j1k2l3m --before 2026-01-31 --yes`
}

// what builds the erase command from the flags.
func (e *erase) what(console *Console) (*conversationv1.Erase, error) {
	what := &conversationv1.Erase{Seqs: e.Seq, Sender: e.Sender}
	set := 0
	for _, given := range []bool{len(e.Seq) > 0, e.Sender != "", e.Before != ""} {
		if given {
			set++
		}
	}
	if set != 1 {
		return nil, usage("set exactly one of --seq, --sender and --before")
	}
	if e.Before != "" {
		before, err := parseTime(e.Before, console.Now().Location())
		if err != nil {
			return nil, err
		}
		what.BeforeMs = before.UnixMilli()
	}
	if !e.Yes {
		return nil, usage("erasing cannot be undone: confirm with --yes")
	}
	return what, nil
}

// parseTime parses a date, interpreted in a zone, or a time that states its zone.
func parseTime(text string, zone *time.Location) (time.Time, error) {
	if day, err := time.ParseInLocation(time.DateOnly, text, zone); err == nil {
		return day, nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, usage("%q is not a time: write 2026-01-31, or 2026-01-31T12:00:00Z", clean(text))
	}
	return at, nil
}

// Run erases content.
func (e *erase) Run(ctx context.Context, c *Command, console *Console) error {
	what, err := e.what(console)
	if err != nil {
		return err
	}
	id := e.CommandID
	if id == "" {
		made, err := uuid.NewV7()
		if err != nil {
			return failed("make an id: %v", err)
		}
		id = made.String()
	}
	return c.run(console, func(s *session) error {
		answer, err := s.admin.Erase(ctx, &adminv1.EraseRequest{ConversationId: e.ID, CommandId: id, Erase: what})
		if err != nil {
			s.notef("If the outcome is unknown, repeat the command with --command-id %s.", id)
			return err
		}
		return s.printOutcome(answer, answer.GetOutcome(), "it was already erased, by event %d of %s", "erased; event %d of %s records it")
	})
}
