package admincli

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
)

type explain struct {
	User         string `required:"" help:"User who should have received the event." placeholder:"USER"`
	Conversation string `required:"" help:"Id of the conversation." placeholder:"ID"`
	Seq          uint64 `required:"" help:"The event's seq." placeholder:"NUMBER" range:"1.."`
}

func (*explain) Help() string {
	return `Prints the verdict first: the hop that decided. The evidence follows, with times from the clock of each instance. Instances keep
records for a limited time; before REMEMBERS SINCE, a missing step proves nothing.

  runnel admin explain --user bob --conversation g1a2b3c4d5e6f7g8h9i0j1k2l3m --seq 42`
}

// Run prints the explanation.
func (e *explain) Run(ctx context.Context, c *Command, console *Console) error {
	return c.run(console, func(s *session) error {
		answer, err := s.admin.Explain(ctx, &adminv1.ExplainRequest{UserId: e.User, ConversationId: e.Conversation, Seq: e.Seq})
		if err != nil {
			return err
		}
		if err := s.print(answer, func(p *page) { e.draw(p, answer) }); err != nil {
			return err
		}
		return complete(answer.GetMissing())
	})
}

func (e *explain) draw(p *page, answer *adminv1.ExplainResponse) {
	p.linef("%s: %s", strings.ToUpper(word(answer.GetVerdict(), "VERDICT_")), answer.GetSummary())
	p.gap()
	p.row("event", fmt.Sprintf("%d of %s, whose newest is %d", e.Seq, e.Conversation, answer.GetHead()))
	if event := answer.GetEvent(); event != nil {
		p.row("what", fmt.Sprintf("%s by %s", word(event.GetKind(), "EVENT_KIND_"), person(event.GetSender())))
		p.row("taken", p.moment(event.GetTimeMs()))
		p.row("command", event.GetCommandId())
	}
	if answer.GetVerdict() != adminv1.Verdict_VERDICT_NOT_COMMITTED {
		p.row("committed by", cmp.Or(answer.GetWorker(), "no longer in memory"))
	}
	if commit := answer.GetCommit(); commit != nil {
		p.row("stream sequence", number(commit.GetSequence()))
		p.row("batch of", number(commit.GetBatch()))
		if parts := strings.Split(commit.GetTraceparent(), "-"); len(parts) == 4 {
			p.row("trace", parts[1])
		}
	}
	p.row("user", person(e.User))
	if cursor := answer.GetCursor(); cursor != nil {
		p.row("received up to", fmt.Sprintf("%d, last at %s", cursor.GetDeliveredSeq(), cmp.Or(p.moment(cursor.GetDeliveredTimeMs()), "no time")))
		p.row("read up to", number(cursor.GetReadSeq()))
	} else if answer.GetVerdict() != adminv1.Verdict_VERDICT_NOT_COMMITTED { // for an uncommitted event the cursor was not read
		p.row("received up to", "no member")
	}
	p.row("sent again", plural(answer.GetRetries(), "time"))
	if answer.GetFilledLater() {
		p.row("came", "not live: the gap was filled from history")
	}
	p.gap()
	drawTimeline(p, answer.GetTimeline(), accepted(answer))
	drawTrails(p, answer)
	drawMemory(p, answer)
}

// accepted returns the time at which the broker accepted the command, in nanoseconds; 0 if it is not known.
func accepted(answer *adminv1.ExplainResponse) int64 {
	return cmp.Or(answer.GetCommit().GetAcceptedNs(), answer.GetEvent().GetTimeMs()*1e6)
}

// drawTimeline prints the time between steps, because absolute times would not show which step took long. Time zero is
// when the broker accepted the command. Earlier steps, such as opening a connection, have negative times.
func drawTimeline(p *page, timeline []*adminv1.TimelineEntry, zero int64) {
	if len(timeline) == 0 {
		p.linef("nothing about this event is in memory any more")
		p.gap()
		return
	}
	p.row("TIME", "AFTER", "WHERE", "WHAT")
	zero = cmp.Or(zero, timeline[0].GetTimeNs())
	for _, entry := range timeline {
		p.row(time.Unix(0, entry.GetTimeNs()).In(p.console.Now().Location()).Format("2006-01-02T15:04:05.000Z07:00"),
			distance(time.Duration(entry.GetTimeNs()-zero)), entry.GetWhere(), entry.GetWhat())
	}
	p.gap()
}

// distance formats a duration. Short durations are printed exactly, because they are compared between steps.
func distance(d time.Duration) string {
	switch {
	case d.Abs() < time.Second:
		return fmt.Sprintf("%+.1f ms", float64(d.Microseconds())/1000)
	case d.Abs() < time.Minute:
		return fmt.Sprintf("%+.1f s", d.Seconds())
	case d < 0:
		return "-" + span(-d)
	default:
		return "+" + span(d)
	}
}

// drawTrails prints the user's connections.
func drawTrails(p *page, answer *adminv1.ExplainResponse) {
	var headed bool
	for _, gateway := range answer.GetGateways() {
		for _, trail := range gateway.GetTrails() {
			if !headed {
				headed = true
				p.row("CONNECTION", "DEVICE", "GATEWAY", "SENT", "ACKNOWLEDGED", "OPENED", "CLOSED")
			}
			closed := "open"
			if trail.GetClosedMs() != 0 {
				closed = fmt.Sprintf("%d %s, %s", trail.GetCloseCode(), trail.GetCloseReason(), p.moment(trail.GetClosedMs()))
			}
			sent, acknowledged := "not listening", ""
			if at := trail.GetStanding(); at != nil {
				sent, acknowledged = number(at.GetSent()), number(at.GetAcknowledged())
			}
			p.row(trail.GetConnectionId(), trail.GetDeviceId(), gateway.GetGateway(), sent, acknowledged, p.moment(trail.GetOpenedMs()), closed)
		}
	}
	if headed {
		p.gap()
	}
}

func drawMemory(p *page, answer *adminv1.ExplainResponse) {
	p.row("ASKED", "REMEMBERS SINCE", "CONNECTIONS SINCE")
	for _, worker := range answer.GetWorkers() {
		p.row(worker.GetWorker(), p.moment(worker.GetRemembersSinceMs()), "")
	}
	for _, gateway := range answer.GetGateways() {
		p.row(gateway.GetGateway(), p.moment(gateway.GetRemembersSinceMs()), p.moment(gateway.GetConnectionsSinceMs()))
	}
}
