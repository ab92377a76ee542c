package admin

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"

	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/ids"
)

// finding is the reason why a user did or did not get an event.
type finding struct {
	verdict     adminv1.Verdict
	summary     string
	filledLater bool
}

// reach is how far an event got on one connection.
type reach int

const (
	reachNothing reach = iota // its gateway has not received the event
	reachGateway              // its gateway has the event, the connection is behind
	reachQueued
	reachWritten
	reachAcknowledged
)

// trail describes one connection of the user, and how far the event got on it.
type trail struct {
	*gatewayv1.Trail

	gateway *gatewayv1.ExplainResponse
	reach   reach
	at      int64 // when the event reached that stage, Unix nanoseconds; 0 if not known
	// filled means that the event did not reach the connection live, but when it was filled from history or memory.
	filled bool
}

func (t *trail) live() bool { return t.GetClosedMs() == 0 }

func (t *trail) String() string {
	return fmt.Sprintf("connection %s (device %s) on gateway %s", t.GetConnectionId(), t.GetDeviceId(), t.gateway.GetGateway())
}

// verdict finds the step that decided whether the user got the event. It checks in the order of certainty: the state in the store, acknowledgements of devices,
// current progress, and earlier failures. If nothing is known, it says so.
//
//	not committed ─▶ not a member ─▶ acknowledged ─▶ connected now: written, queued, or lost before its gateway
//	─▶ was connected: why that ended ─▶ offline, or not known
func (f *facts) verdict() finding {
	if f.event == nil && f.seq > f.head {
		return f.notCommitted()
	}
	if !f.visible {
		return f.notMember()
	}
	trails := f.trails()
	if found, yes := f.acknowledged(trails); yes {
		return found
	}
	var living, gone []*trail
	for _, t := range trails {
		switch {
		case t.live():
			living = append(living, t)
		case t.GetClosedMs() >= f.committedNs()/1e6:
			gone = append(gone, t) // a connection that ended before the commit is not relevant
		}
	}
	if len(living) > 0 {
		return f.onItsWay(slices.MaxFunc(living, func(a, b *trail) int { return cmp.Compare(a.reach, b.reach) }))
	}
	if silent := f.silentGateways(); len(silent) > 0 {
		return finding{verdict: adminv1.Verdict_VERDICT_UNKNOWN, summary: fmt.Sprintf(
			"%s has not acknowledged it, and has no connection on the gateways that answered. No answer from %s, where one may be.", f.person(), strings.Join(silent, ", "))}
	}
	if len(gone) > 0 {
		return f.lost(slices.MaxFunc(gone, func(a, b *trail) int { return cmp.Compare(a.GetClosedMs(), b.GetClosedMs()) }))
	}
	return f.offline()
}

func (f *facts) notCommitted() finding {
	summary := fmt.Sprintf("The newest event of the conversation is %d: %d is not committed.", f.head, f.seq)
	if p := f.partition; p != nil {
		switch {
		case p.GetOwner() == "":
			summary += fmt.Sprintf(" Its partition %d has no owner: nothing is committed there until a worker takes it over.", p.GetPartition())
		case p.GetLag() > 0 || p.GetState() != stateRunning:
			summary += fmt.Sprintf(" Its partition %d (owner %s) is %s, and %d commands wait.", p.GetPartition(), p.GetOwner(), p.GetState(), p.GetLag())
		default:
			summary += fmt.Sprintf(" Its partition %d (owner %s) is running, and no command waits: no client has sent it.", p.GetPartition(), p.GetOwner())
		}
	}
	return finding{verdict: adminv1.Verdict_VERDICT_NOT_COMMITTED, summary: summary}
}

func (f *facts) notMember() finding {
	summary := fmt.Sprintf("%s was not a member when %d was committed, and may not read it.", f.person(), f.seq)
	switch {
	case f.member && f.joined > f.seq:
		summary += fmt.Sprintf(" The current membership began with %d.", f.joined)
	case !f.member && f.last > 0 && f.last < f.seq:
		summary += fmt.Sprintf(" The last membership ended with %d.", f.last)
	case !f.member && f.last == 0:
		summary = f.person() + " never was a member of this conversation."
	}
	return finding{verdict: adminv1.Verdict_VERDICT_NOT_MEMBER, summary: summary}
}

// acknowledged looks for a device that has acknowledged the event.
func (f *facts) acknowledged(trails []*trail) (finding, bool) {
	found := finding{verdict: adminv1.Verdict_VERDICT_ACKNOWLEDGED}
	var first *trail
	for _, t := range trails {
		if t.reach == reachAcknowledged && (first == nil || (t.at != 0 && t.at < first.at) || first.at == 0) {
			first = t
		}
	}
	switch cursor, at := f.received(); {
	case first != nil:
		found.filledLater = first.filled
		found.summary = fmt.Sprintf("%s has it: acknowledged%s by %s.", f.person(), f.when(first.at), first)
	case ids.User(f.event.GetSender()) == f.user && cursor >= f.seq:
		found.summary = f.person() + " has it: it is their own, and counts as received since its commit."
	case cursor >= f.seq:
		found.summary = fmt.Sprintf("%s has it: the cursor is at %d%s. The connection is not known any more.", f.person(), cursor, f.when(at))
	default:
		return found, false
	}
	if found.filledLater {
		found.summary += " It did not arrive live; the gap was filled from history."
	}
	return found, true
}

// onItsWay makes the finding for a live connection that has not acknowledged the event. It is called for the connection
// on which the event got farthest.
func (f *facts) onItsWay(t *trail) finding {
	found := finding{filledLater: t.filled && t.reach >= reachQueued}
	switch t.reach {
	case reachWritten, reachAcknowledged:
		found.verdict = adminv1.Verdict_VERDICT_WRITTEN
		found.summary = fmt.Sprintf("It was written to %s%s, and is not acknowledged.", t, f.when(t.at))
		if f.retries() > 0 {
			found.summary += fmt.Sprintf(" It %s.", f.sentAgain())
		}
	case reachQueued:
		found.verdict = adminv1.Verdict_VERDICT_QUEUED
		found.summary = fmt.Sprintf("It waits in the queue of %s%s: the connection is slow.", t, f.when(t.at))
	case reachGateway:
		found.verdict = adminv1.Verdict_VERDICT_QUEUED
		found.summary = fmt.Sprintf("Its gateway has it, but %s is at %d and receives the events after that in order: the connection or history is slow.", t, t.GetStanding().GetSent())
	default:
		return f.neverCame(t)
	}
	if found.filledLater {
		found.summary += " It did not arrive live; the gap was filled from history."
	}
	return found
}

// neverCame makes the finding for a live connection whose gateway has not received the event. It names the last place
// that had the event.
func (f *facts) neverCame(t *trail) finding {
	if !covers(t.gateway.GetRemembersSinceMs(), f.committedNs()) && t.GetStanding() == nil {
		return finding{verdict: adminv1.Verdict_VERDICT_UNKNOWN, summary: fmt.Sprintf(
			"%s is not subscribed to the conversation now, and the records of its gateway begin at %s.", t, clock(t.gateway.GetRemembersSinceMs()*1e6))}
	}
	behind, then := fmt.Sprintf("%s has not received it", t), "It is read from history within a heartbeat."
	switch {
	case !f.member:
		behind, then = fmt.Sprintf("%s did not receive it", t), f.person()+" is no longer a member: nothing is sent again."
	case t.GetStanding() == nil:
		behind = fmt.Sprintf("%s is not subscribed to the conversation", t)
	}
	if standing := t.GetStanding(); standing != nil && slices.ContainsFunc(t.gateway.GetSteps(), f.is(gatewayv1.StepKind_STEP_KIND_ROUTED)) {
		why := fmt.Sprintf("has the conversation up to %d only: an earlier event was lost, and the gap is not filled from history yet", standing.GetHead())
		if standing.GetHead() == 0 {
			why = "could not read the head of the conversation from history yet"
		}
		return finding{verdict: adminv1.Verdict_VERDICT_NOT_ROUTED, summary: fmt.Sprintf("It arrived live at the gateway, which %s. %s. %s", why, behind, then)}
	}
	if f.told() {
		return finding{verdict: adminv1.Verdict_VERDICT_NOT_ROUTED, summary: fmt.Sprintf(
			"It was published, and lost between the broker and the gateway: %s. %s", behind, then)}
	}
	for _, w := range f.workers {
		if c := w.GetCommit(); c != nil {
			return finding{verdict: adminv1.Verdict_VERDICT_NOT_PUBLISHED, summary: fmt.Sprintf(
				"Worker %s committed it%s and could not publish it: %s. The worker republishes it once it is connected to NATS again. %s",
				w.GetWorker(), f.when(c.GetCommittedNs()), behind, then)}
		}
	}
	if silent := f.silentWorkers(); len(silent) > 0 {
		return finding{verdict: adminv1.Verdict_VERDICT_NOT_ROUTED, summary: fmt.Sprintf(
			"%s. Whether it was published is not known: no answer from %s. %s", behind, strings.Join(silent, ", "), then)}
	}
	return finding{verdict: adminv1.Verdict_VERDICT_NOT_PUBLISHED, summary: fmt.Sprintf(
		"It is committed, but no running worker has a record of publishing it, and no gateway received it: the worker that committed it has stopped, or no longer has the record. "+
			"%s. The partition's next owner republishes it. %s", behind, then)}
}

// told reports whether the broker is known to have received the published event.
func (f *facts) told() bool {
	for _, w := range f.workers {
		if w.GetCommit().GetPublishedNs() != 0 || w.GetRepublishedNs() != 0 {
			return true
		}
	}
	return slices.ContainsFunc(f.gateways, func(g *gatewayv1.ExplainResponse) bool {
		return slices.ContainsFunc(g.GetSteps(), f.is(gatewayv1.StepKind_STEP_KIND_ROUTED))
	})
}

// lost makes the finding for the user's last connection, which ended before it acknowledged the event.
func (f *facts) lost(t *trail) finding {
	got := map[reach]string{
		reachNothing: "had not reached its gateway", reachGateway: "was not queued to it yet", reachQueued: "was queued and not written",
		reachWritten: "was written and not acknowledged",
	}[t.reach]
	found := finding{filledLater: t.filled && t.reach >= reachQueued}
	then := f.person() + " has not reconnected since; the event can be read from history."
	if t.GetClosedMs() < f.settledMs {
		then = fmt.Sprintf("Whether %s reconnected before %s is not known: a gateway may have stopped. The event can be read from history.", f.person(), clock(f.settledMs*1e6))
	}
	switch code := errcode.CloseCode(t.GetCloseCode()); code {
	case errcode.CloseSlow:
		found.verdict = adminv1.Verdict_VERDICT_SLOW_CLOSED
		found.summary = fmt.Sprintf("%s was closed%s because its queue was full: it read too slowly. The event %s. %s", t, f.when(t.GetClosedMs()*1e6), got, then)
	case errcode.CloseNoAck:
		found.verdict = adminv1.Verdict_VERDICT_NOT_ACKNOWLEDGED
		found.summary = fmt.Sprintf("%s was closed as dead%s: the event was not acknowledged and %s. %s", t, f.when(t.GetClosedMs()*1e6), f.sentAgain(), then)
	default:
		found.verdict = adminv1.Verdict_VERDICT_CONNECTION_LOST
		found.summary = fmt.Sprintf("%s ended%s (%d, %s). The event %s. %s", t, f.when(t.GetClosedMs()*1e6), t.GetCloseCode(), t.GetCloseReason(), got, then)
	}
	return found
}

func (f *facts) offline() finding {
	if len(f.gateways) == 0 {
		return finding{verdict: adminv1.Verdict_VERDICT_UNKNOWN, summary: f.person() + " has not acknowledged it, and no gateway is running."}
	}
	since := f.settledMs
	for _, g := range f.gateways {
		since = max(since, g.GetConnectionsSinceMs())
	}
	if !covers(since, f.committedNs()) {
		return finding{verdict: adminv1.Verdict_VERDICT_UNKNOWN, summary: fmt.Sprintf(
			"%s has not acknowledged it, and has been offline since %s at least. Whether there was a connection between the commit at %s and then is not known.",
			f.person(), clock(since*1e6), clock(f.committedNs()))}
	}
	return finding{verdict: adminv1.Verdict_VERDICT_OFFLINE, summary: fmt.Sprintf(
		"%s has had no connection since it was committed at %s. The event can be read from history.", f.person(), clock(f.committedNs()))}
}

// trails returns the user's connections that may be relevant to the event.
func (f *facts) trails() []*trail {
	var trails []*trail
	for _, g := range f.gateways {
		for _, of := range g.GetTrails() {
			trails = append(trails, f.follow(g, of))
		}
	}
	return trails
}

// follow finds how far the event got on a connection.
func (f *facts) follow(g *gatewayv1.ExplainResponse, of *gatewayv1.Trail) *trail {
	t := &trail{Trail: of, gateway: g}
	var live, fromStore bool
	for _, step := range of.GetSteps() {
		if !f.about(step) {
			continue
		}
		var got reach
		switch step.GetKind() {
		case gatewayv1.StepKind_STEP_KIND_QUEUED:
			got, live = reachQueued, true
		case gatewayv1.StepKind_STEP_KIND_CAUGHT_UP:
			got, fromStore = reachQueued, true
		case gatewayv1.StepKind_STEP_KIND_WRITTEN:
			got = reachWritten
		case gatewayv1.StepKind_STEP_KIND_ACKNOWLEDGED, gatewayv1.StepKind_STEP_KIND_RESUMED_BEYOND:
			got = reachAcknowledged
		default: // these steps do not show how far the event got
		}
		if got > t.reach {
			t.reach, t.at = got, step.GetTimeNs()
		}
	}
	// Even if the event was queued live to a connection, the gateway may have read it from history.
	came := slices.ContainsFunc(g.GetSteps(), f.is(gatewayv1.StepKind_STEP_KIND_ROUTED))
	filled := slices.ContainsFunc(g.GetSteps(), f.is(gatewayv1.StepKind_STEP_KIND_GAP_FILLED))
	t.filled = (fromStore && !live) || (live && filled && !came)
	// The recorder may no longer have the steps; the position of a connection is kept longer.
	if standing := of.GetStanding(); standing != nil {
		switch {
		case ids.Seq(standing.GetAcknowledged()) >= f.seq && t.reach < reachAcknowledged:
			t.reach, t.at = reachAcknowledged, 0
		case ids.Seq(standing.GetSent()) >= f.seq && t.reach < reachQueued:
			t.reach = reachWritten
		case ids.Seq(standing.GetHead()) >= f.seq:
			t.reach = max(t.reach, reachGateway)
		}
	}
	return t
}

func (f *facts) about(step *gatewayv1.Step) bool {
	return ids.Seq(step.GetFirst()) <= f.seq && f.seq <= ids.Seq(step.GetLast())
}

func (f *facts) is(kind gatewayv1.StepKind) func(*gatewayv1.Step) bool {
	return func(step *gatewayv1.Step) bool { return step.GetKind() == kind && f.about(step) }
}

// retries returns how often the event was sent again, to all connections of the user.
func (f *facts) retries() (n uint32) {
	for _, g := range f.gateways {
		for _, t := range g.GetTrails() {
			for _, step := range t.GetSteps() {
				if f.is(gatewayv1.StepKind_STEP_KIND_RETRIED)(step) {
					n++
				}
			}
		}
	}
	return n
}

// received returns the seq up to which the user has received events, and when this seq last changed. It uses the cursor
// in the store, or the owner's cursor, which may be slightly ahead.
func (f *facts) received() (seq ids.Seq, atNs int64) {
	seq, atNs = ids.Seq(f.cursor.GetDeliveredSeq()), f.cursor.GetDeliveredTimeMs()*1e6
	for _, w := range f.workers {
		for _, c := range w.GetCursors() {
			if ids.User(c.GetUserId()) == f.user && ids.Seq(c.GetDeliveredSeq()) > seq {
				seq, atNs = ids.Seq(c.GetDeliveredSeq()), c.GetDeliveredTimeMs()*1e6
			}
		}
	}
	return seq, atNs
}

// committedNs returns when the event was committed. If that time is not known, it returns when the broker accepted the
// command, which is shortly before.
func (f *facts) committedNs() int64 {
	if _, commit := f.commit(); commit.GetCommittedNs() != 0 {
		return commit.GetCommittedNs()
	}
	return f.event.GetTimeMs() * 1e6
}

func (f *facts) silentGateways() []string { return f.silent(serviceGateway) }
func (f *facts) silentWorkers() []string  { return f.silent(serviceDelivery) }

func (f *facts) silent(service string) (instances []string) {
	for _, m := range f.missing {
		if m.GetService() == service {
			instances = append(instances, service+" "+m.GetInstance())
		}
	}
	return instances
}

// when formats a time, and its distance from the commit; empty if the time is not known.
func (f *facts) when(ns int64) string {
	if ns == 0 {
		return ""
	}
	text := " at " + clock(ns)
	if _, commit := f.commit(); commit.GetCommittedNs() != 0 && ns > commit.GetCommittedNs() {
		text += fmt.Sprintf(" (%v after the commit)", time.Duration(ns-commit.GetCommittedNs()).Round(10*time.Microsecond))
	}
	return text
}

// sentAgain formats how often the event was sent again.
func (f *facts) sentAgain() string {
	switch n := f.retries(); n {
	case 0:
		return "was not sent again"
	case 1:
		return "was sent again once"
	default:
		return fmt.Sprintf("was sent again %d times", n)
	}
}

// covers reports whether records that begin at a time include an event.
func covers(sinceMs, eventNs int64) bool { return sinceMs*1e6 <= eventNs }

func clock(ns int64) string { return time.Unix(0, ns).UTC().Format("2006-01-02 15:04:05.000 UTC") }
