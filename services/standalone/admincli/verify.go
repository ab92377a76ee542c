package admincli

import (
	"context"
	"time"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
)

const (
	// progressEvery is how often a long check prints its progress.
	progressEvery = 2 * time.Second
	// maxFaults is the number of faults after which a check stops.
	maxFaults = 1000
)

type verifyConversation struct {
	ID string `arg:"" help:"Id of the conversation."`
}

func (*verifyConversation) Help() string {
	return `The worker reads the whole log, from the first event to the newest. The exit code is 1 if it finds a fault. Erased content
is not a fault.

  runnel admin conversations verify g1a2b3c4d5e6f7g8h9i0j1k2l3m`
}

// Run checks a log, one stretch after another.
func (v *verifyConversation) Run(ctx context.Context, c *Command, console *Console) error {
	return c.run(console, func(s *session) error {
		whole := &adminv1.VerifyConversationResponse{}
		told, end := s.Now(), uint64(0)
		for {
			answer, err := s.admin.VerifyConversation(ctx, &adminv1.VerifyConversationRequest{
				ConversationId: v.ID, After: whole.GetChecked(), AfterHash: whole.GetCheckedHash(),
			})
			if err != nil {
				return err
			}
			stands := answer.GetChecked() <= whole.GetChecked()
			whole.Checked, whole.CheckedHash, whole.Head = answer.GetChecked(), answer.GetCheckedHash(), answer.GetHead()
			whole.Faults, whole.Erased = append(whole.GetFaults(), answer.GetFaults()...), whole.GetErased()+answer.GetErased()
			if end == 0 {
				end = whole.GetHead() // the check ends at the head at its start, even if clients write meanwhile
			}
			if whole.GetChecked() >= end || len(whole.GetFaults()) >= maxFaults {
				break
			}
			if stands {
				if len(whole.GetFaults()) > 0 {
					break // after its faults the log cannot be read further
				}
				return failed("the check makes no progress beyond seq %d of %d", whole.GetChecked(), whole.GetHead())
			}
			if now := s.Now(); now.Sub(told) >= progressEvery {
				told = now
				s.notef("%d of %d events checked", whole.GetChecked(), whole.GetHead())
			}
		}
		if err := s.print(whole, func(p *page) { drawVerified(p, v.ID, whole) }); err != nil {
			return err
		}
		if n := len(whole.GetFaults()); n > 0 {
			return failed("the log of %s is not intact: %s", clean(v.ID), plural(n, "fault"))
		}
		return nil
	})
}

func drawVerified(p *page, id string, whole *adminv1.VerifyConversationResponse) {
	if len(whole.GetFaults()) == 0 {
		p.linef("%s: %s, %d of them erased: no hole, every hash is correct", id, plural(whole.GetChecked(), "event"), whole.GetErased())
		return
	}
	p.row("SEQ", "PROBLEM")
	for _, fault := range whole.GetFaults() {
		p.row(number(fault.GetSeq()), fault.GetProblem())
	}
	p.gap()
	p.linef("%s: checked up to seq %d of %d", id, whole.GetChecked(), whole.GetHead())
}
