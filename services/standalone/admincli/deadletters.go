package admincli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

type deadLetters struct {
	List  listDeadLetters `cmd:"" help:"List dead letters."`
	Show  showDeadLetter  `cmd:"" help:"Show one dead letter with its command."`
	Retry retryDeadLetter `cmd:"" help:"Send the command again. The dead letter is deleted when the command has an outcome."`
	Drop  dropDeadLetter  `cmd:"" help:"Delete a dead letter permanently."`
}

type listDeadLetters struct {
	Partition *uint32 `help:"Only of this partition." placeholder:"NUMBER"`
	Limit     uint32  `help:"At most this many." default:"1000" range:"1..100000"`
}

func (*listDeadLetters) Help() string {
	return `A dead letter is a command that failed repeatedly and was taken out of its partition's stream, so that the partition could
continue. Its sender received an error.

  runnel admin dead-letters list --partition 3`
}

// Run lists dead letters.
func (l *listDeadLetters) Run(ctx context.Context, c *Command, console *Console) error {
	return c.run(console, func(s *session) error {
		all := &adminv1.ListDeadLettersResponse{}
		more, err := turn(ctx, l.Limit, func(ctx context.Context, limit uint32) (int, bool, error) {
			request := &adminv1.ListDeadLettersRequest{Partition: l.Partition, Limit: limit}
			if n := len(all.GetDeadLetters()); n > 0 {
				request.After = all.GetDeadLetters()[n-1].GetDeadLetterId()
			}
			answer, err := s.admin.ListDeadLetters(ctx, request)
			all.DeadLetters = append(all.DeadLetters, answer.GetDeadLetters()...)
			return len(answer.GetDeadLetters()), answer.GetMore(), err
		})
		if err != nil {
			return err
		}
		all.More = more
		defer s.noteMore(more)
		return s.print(all, func(p *page) {
			if len(all.GetDeadLetters()) == 0 {
				p.linef("no dead letters")
				return
			}
			p.row("DEAD LETTER", "PARTITION", "SIZE", "PUT ASIDE", "REASON")
			for _, letter := range all.GetDeadLetters() {
				p.row(letter.GetDeadLetterId(), number(letter.GetPartition()), size(letter.GetPayloadBytes()),
					p.moment(letter.GetTimeMs()), letter.GetLetter().GetReason())
			}
		})
	})
}

type showDeadLetter struct {
	ID string `arg:"" help:"Id of the dead letter."`
}

func (*showDeadLetter) Help() string {
	return `The output contains the message that the sender wrote: it may be confidential.

  runnel admin dead-letters show 003-5Jd0-00000000000000000881`
}

// Run shows a dead letter.
func (w *showDeadLetter) Run(ctx context.Context, c *Command, console *Console) error {
	return c.run(console, func(s *session) error {
		answer, err := s.admin.GetDeadLetter(ctx, &adminv1.GetDeadLetterRequest{DeadLetterId: w.ID})
		if err != nil {
			return err
		}
		body, err := indented(answer.GetBody())
		if err != nil {
			return err
		}
		return s.print(answer, func(p *page) {
			letter := answer.GetDeadLetter()
			p.row("dead letter", letter.GetDeadLetterId())
			p.row("partition", number(letter.GetPartition()))
			p.row("stream", letter.GetStream())
			p.row("sequence", number(letter.GetLetter().GetSequence()))
			p.row("put aside", p.moment(letter.GetTimeMs()))
			p.row("reason", letter.GetLetter().GetReason())
			p.row("size", size(letter.GetPayloadBytes()))
			if answer.GetConversationId() == "" {
				p.gap()
				p.linef("This version cannot decode the command: it can only be dropped, not retried. --json shows its bytes.")
				return
			}
			p.row("conversation", answer.GetConversationId())
			p.row("sender", person(answer.GetSender()))
			p.row("command", answer.GetCommandId())
			p.gap()
			for _, line := range body {
				p.linef("%s", line)
			}
		})
	})
}

// indented formats a body as indented JSON.
func indented(body *conversationv1.Body) ([]string, error) {
	text, err := protojson.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("print the command: %w", err)
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, text, "", "  "); err != nil {
		return nil, fmt.Errorf("print the command: %w", err)
	}
	var lines []string
	for line := range bytes.Lines(pretty.Bytes()) {
		lines = append(lines, string(bytes.TrimSuffix(line, []byte("\n"))))
	}
	return lines, nil
}

type retryDeadLetter struct {
	ID string `arg:"" help:"Id of the dead letter."`
}

func (*retryDeadLetter) Help() string {
	return `Safe to repeat: a command that was committed in the meantime is not committed again. If the command is refused, the
dead letter is kept, and the exit code is 1; another retry within ten minutes is refused the same way.

  runnel admin dead-letters retry 003-5Jd0-00000000000000000881`
}

// Run retries a dead letter.
func (r *retryDeadLetter) Run(ctx context.Context, c *Command, console *Console) error {
	return c.run(console, func(s *session) error {
		answer, err := s.admin.RetryDeadLetter(ctx, &adminv1.RetryDeadLetterRequest{DeadLetterId: r.ID})
		if err != nil {
			return err
		}
		return s.printOutcome(answer, answer.GetOutcome(), "the command was already committed, as seq %d of %s", "committed as seq %d of %s")
	})
}

type dropDeadLetter struct {
	ID  string `arg:"" help:"Id of the dead letter."`
	Yes bool   `help:"Confirm that this cannot be undone."`
}

func (*dropDeadLetter) Help() string {
	return `The command is deleted permanently. Its sender received an error when the command became a dead letter.

  runnel admin dead-letters drop 003-5Jd0-00000000000000000881 --yes`
}

// Run drops a dead letter.
func (d *dropDeadLetter) Run(ctx context.Context, c *Command, console *Console) error {
	if !d.Yes {
		return usage("dropping cannot be undone: confirm with --yes, or inspect it first with runnel admin dead-letters show %s", clean(d.ID))
	}
	return c.run(console, func(s *session) error {
		answer, err := s.admin.DropDeadLetter(ctx, &adminv1.DropDeadLetterRequest{DeadLetterId: d.ID})
		if err != nil {
			return err
		}
		return s.print(answer, func(p *page) { p.linef("dropped %s", d.ID) })
	})
}
