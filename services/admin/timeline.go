package admin

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/runnelhq/runnel/pkg/ids"
	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"
)

// maxTimeline limits the number of entries of a timeline, which people read.
const maxTimeline = 1000

var steps = map[gatewayv1.StepKind]string{
	gatewayv1.StepKind_STEP_KIND_ROUTED:         "arrived live",
	gatewayv1.StepKind_STEP_KIND_MISSED:         "was found missing",
	gatewayv1.StepKind_STEP_KIND_GAP_FILLED:     "was read from history for all subscribers of the gateway",
	gatewayv1.StepKind_STEP_KIND_QUEUED:         "was queued",
	gatewayv1.StepKind_STEP_KIND_CAUGHT_UP:      "was read for a connection that was behind, and queued",
	gatewayv1.StepKind_STEP_KIND_WRITTEN:        "was written",
	gatewayv1.StepKind_STEP_KIND_ACKNOWLEDGED:   "was acknowledged",
	gatewayv1.StepKind_STEP_KIND_RETRIED:        "was not acknowledged in time, and is sent again",
	gatewayv1.StepKind_STEP_KIND_HIDDEN:         "is in a stretch that was hidden from the user",
	gatewayv1.StepKind_STEP_KIND_RESUMED_BEYOND: "was already received, as the client reported when it connected",
}

// timeline returns all known steps by time. Each time comes from the clock of the machine where the step happened.
// Therefore neighbouring steps from different machines may be in the wrong order.
func (f *facts) timeline() []*adminv1.TimelineEntry {
	var entries []*adminv1.TimelineEntry
	add := func(ns int64, where, what string) {
		if ns != 0 {
			entries = append(entries, &adminv1.TimelineEntry{TimeNs: ns, Where: where, What: what})
		}
	}
	const store, broker = "history", "broker"
	if worker, commit := f.commit(); commit != nil {
		add(commit.GetAcceptedNs(), broker, fmt.Sprintf("accepted the command as message %d of its partition", commit.GetSequence()))
		what := "committed it"
		if commit.GetBatch() > 0 {
			what = fmt.Sprintf("committed it, in a batch of %d", commit.GetBatch())
		}
		add(commit.GetCommittedNs(), worker, what)
		add(commit.GetPublishedNs(), worker, "published it to the gateways")
	} else if f.event != nil {
		add(f.event.GetTimeMs()*1e6, broker, "accepted the command")
	}
	for _, w := range f.workers {
		add(w.GetRepublishedNs(), w.GetWorker(), "republished it, after taking over the partition or reconnecting to NATS")
	}
	for _, g := range f.gateways {
		for _, step := range g.GetSteps() {
			add(step.GetTimeNs(), g.GetGateway(), steps[step.GetKind()])
		}
		for _, t := range g.GetTrails() {
			where := fmt.Sprintf("connection %s (device %s)", t.GetConnectionId(), t.GetDeviceId())
			add(t.GetOpenedMs()*1e6, g.GetGateway(), where+" was opened")
			add(t.GetClosedMs()*1e6, g.GetGateway(), fmt.Sprintf("%s ended: %d, %s", where, t.GetCloseCode(), t.GetCloseReason()))
			for _, step := range t.GetSteps() {
				add(step.GetTimeNs(), g.GetGateway(), steps[step.GetKind()]+": "+where)
			}
		}
	}
	if ids.Seq(f.cursor.GetDeliveredSeq()) >= f.seq {
		add(f.cursor.GetDeliveredTimeMs()*1e6, store, fmt.Sprintf("the user's cursor moved to %d", f.cursor.GetDeliveredSeq()))
	}
	if ids.Seq(f.cursor.GetReadSeq()) >= f.seq {
		add(f.cursor.GetReadTimeMs()*1e6, store, fmt.Sprintf("the user has read up to %d", f.cursor.GetReadSeq()))
	}
	slices.SortStableFunc(entries, func(a, b *adminv1.TimelineEntry) int { return cmp.Compare(a.GetTimeNs(), b.GetTimeNs()) })
	return entries[:min(len(entries), maxTimeline)]
}
