package admin

import (
	"testing"

	"github.com/stretchr/testify/require"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	deliveryv1 "github.com/runnelhq/runnel/proto/runnel/delivery/v1"
	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"

	"github.com/runnelhq/runnel/pkg/errcode"
)

const (
	acknowledged    = adminv1.Verdict_VERDICT_ACKNOWLEDGED
	written         = adminv1.Verdict_VERDICT_WRITTEN
	queued          = adminv1.Verdict_VERDICT_QUEUED
	slowClosed      = adminv1.Verdict_VERDICT_SLOW_CLOSED
	notAcknowledged = adminv1.Verdict_VERDICT_NOT_ACKNOWLEDGED
	notRouted       = adminv1.Verdict_VERDICT_NOT_ROUTED
	notPublished    = adminv1.Verdict_VERDICT_NOT_PUBLISHED
	offline         = adminv1.Verdict_VERDICT_OFFLINE
	notMember       = adminv1.Verdict_VERDICT_NOT_MEMBER
	notCommitted    = adminv1.Verdict_VERDICT_NOT_COMMITTED
	unknown         = adminv1.Verdict_VERDICT_UNKNOWN
	connectionLost  = adminv1.Verdict_VERDICT_CONNECTION_LOST
)

// base is the time of the event's commit, in Unix milliseconds. All records begin one second before it.
const base = int64(1_790_000_000_000)

// step is a step of event 5, a number of milliseconds after its commit.
func step(kind gatewayv1.StepKind, after int64) *gatewayv1.Step {
	return &gatewayv1.Step{Kind: kind, TimeNs: (base + after) * 1e6, First: 5, Last: 5}
}

const (
	stepRouted  = gatewayv1.StepKind_STEP_KIND_ROUTED
	stepMissed  = gatewayv1.StepKind_STEP_KIND_MISSED
	stepFilled  = gatewayv1.StepKind_STEP_KIND_GAP_FILLED
	stepQueued  = gatewayv1.StepKind_STEP_KIND_QUEUED
	stepCaught  = gatewayv1.StepKind_STEP_KIND_CAUGHT_UP
	stepWritten = gatewayv1.StepKind_STEP_KIND_WRITTEN
	stepAcked   = gatewayv1.StepKind_STEP_KIND_ACKNOWLEDGED
	stepRetried = gatewayv1.StepKind_STEP_KIND_RETRIED
	stepResumed = gatewayv1.StepKind_STEP_KIND_RESUMED_BEYOND
)

// path makes steps that are one millisecond apart.
func path(kinds ...gatewayv1.StepKind) (list []*gatewayv1.Step) {
	for i, kind := range kinds {
		list = append(list, step(kind, int64(i)+2))
	}
	return list
}

// at makes a live connection of bob at a position.
func at(head, sent, acked uint64, steps ...gatewayv1.StepKind) *gatewayv1.Trail {
	return &gatewayv1.Trail{
		ConnectionId: "c1", DeviceId: "phone", OpenedMs: base - 500, Steps: path(steps...),
		Standing: &gatewayv1.Standing{ConversationId: "g", Head: head, Sent: sent, Acknowledged: acked},
	}
}

// closed makes the same connection after it ended, a number of milliseconds after the commit.
func closed(t *gatewayv1.Trail, code errcode.CloseCode, after int64) *gatewayv1.Trail {
	t.ClosedMs, t.CloseCode, t.CloseReason = base+after, uint32(code), code.String()
	return t
}

// deaf makes a live connection that is not subscribed to the conversation.
func deaf() *gatewayv1.Trail {
	return &gatewayv1.Trail{ConnectionId: "c1", DeviceId: "phone", OpenedMs: base - 500}
}

// gateway makes a gateway that received the event and recorded these steps.
func gateway(name string, steps []*gatewayv1.Step, trails ...*gatewayv1.Trail) *gatewayv1.ExplainResponse {
	return &gatewayv1.ExplainResponse{
		Gateway: name, StartedMs: base - 1000, RemembersSinceMs: base - 1000, ConnectionsSinceMs: base - 1000, Steps: steps, Trails: trails,
	}
}

func routed(trails ...*gatewayv1.Trail) *gatewayv1.ExplainResponse {
	return gateway("gw-a", []*gatewayv1.Step{step(stepRouted, 1)}, trails...)
}

// without makes a gateway that did not receive the event.
func without(trails ...*gatewayv1.Trail) *gatewayv1.ExplainResponse {
	return gateway("gw-a", nil, trails...)
}

// forgetful makes a gateway whose records begin after the event.
func forgetful(trails ...*gatewayv1.Trail) *gatewayv1.ExplainResponse {
	g := without(trails...)
	g.RemembersSinceMs, g.ConnectionsSinceMs = base+60_000, base+60_000
	return g
}

func committer(published bool) *deliveryv1.ExplainResponse {
	w := &deliveryv1.ExplainResponse{Worker: "w-a", RemembersSinceMs: base - 1000, Owner: true, Commit: &deliveryv1.Commit{
		Sequence: 9, AcceptedNs: (base - 3) * 1e6, CommittedNs: base * 1e6, Batch: 2,
	}}
	if published {
		w.Commit.PublishedNs = base*1e6 + 50_000
	}
	return w
}

// successor makes a worker that owns the partition now and did not commit the event.
func successor(republished bool) *deliveryv1.ExplainResponse {
	w := &deliveryv1.ExplainResponse{Worker: "w-b", RemembersSinceMs: base + 100, Owner: true}
	if republished {
		w.RepublishedNs = (base + 200) * 1e6
	}
	return w
}

func silent(service, instance string) *adminv1.Missing {
	return &adminv1.Missing{Instance: instance, Service: service, Reason: "did not answer in time"}
}

// about returns the default facts about event 5 and bob: a member who has received the events up to 4.
func about(change func(*facts)) *facts {
	f := &facts{
		user: "bob", conversation: "g", seq: 5, head: 6, visible: true, member: true, joined: 1, last: 6,
		event:   &conversationv1.Event{ConversationId: "g", Seq: 5, TimeMs: base - 3, Sender: "ann"},
		cursor:  &conversationv1.Cursor{UserId: "bob", DeliveredSeq: 4},
		workers: []*deliveryv1.ExplainResponse{committer(true)},
	}
	change(f)
	return f
}

func with(gateways ...*gatewayv1.ExplainResponse) *facts {
	return about(func(f *facts) { f.gateways = gateways })
}

func TestVerdict(t *testing.T) {
	seen := map[adminv1.Verdict]bool{}
	for name, test := range map[string]struct {
		facts  *facts
		want   adminv1.Verdict
		says   string
		filled bool
	}{
		// Decided by the store.
		"beyond the head, the partition has no owner": {
			about(func(f *facts) {
				f.seq, f.event, f.partition = 7, nil, &adminv1.Partition{Partition: 3, State: stateNoOwner}
			}),
			notCommitted, "partition 3 has no owner", false,
		},
		"beyond the head, the partition lags": {
			about(func(f *facts) {
				f.seq, f.event, f.partition = 7, nil, &adminv1.Partition{Partition: 3, Owner: "w-a", State: "running", Lag: 12}
			}),
			notCommitted, "12 commands wait", false,
		},
		"beyond the head, the partition is stopped": {
			about(func(f *facts) {
				f.seq, f.event, f.partition = 7, nil, &adminv1.Partition{Partition: 3, Owner: "w-a", State: "stopped: the stream has a hole"}
			}),
			notCommitted, "stopped: the stream has a hole", false,
		},
		"beyond the head, nothing waits": {
			about(func(f *facts) {
				f.seq, f.event, f.partition = 7, nil, &adminv1.Partition{Partition: 3, Owner: "w-a", State: "running"}
			}),
			notCommitted, "no client has sent it", false,
		},
		"never a member": {
			about(func(f *facts) { f.visible, f.member, f.joined, f.last, f.cursor = false, false, 0, 0, nil }),
			notMember, "never was a member", false,
		},
		"member only later": {
			about(func(f *facts) { f.visible, f.joined = false, 6 }), notMember, "membership began with 6", false,
		},
		"member only before": {
			about(func(f *facts) { f.visible, f.member, f.joined, f.last, f.cursor = false, false, 0, 3, nil }),
			notMember, "last membership ended with 3", false,
		},

		// Decided by a device's acknowledgement.
		"live and acknowledged": {
			with(routed(at(6, 6, 6, stepQueued, stepWritten, stepAcked))), acknowledged, "acknowledged at 2026-09-21 14:13:20.004 UTC (4ms after the commit) by connection c1 (device phone) on gateway gw-a", false,
		},
		"acknowledged, and all that is left is the cursor": {
			about(func(f *facts) {
				f.gateways = []*gatewayv1.ExplainResponse{forgetful()}
				f.cursor.DeliveredSeq, f.cursor.DeliveredTimeMs = 5, base+70
			}), acknowledged, "the cursor is at 5", false,
		},
		"acknowledged, and only the owner knows yet": {
			about(func(f *facts) {
				f.workers[0].Cursors = []*conversationv1.Cursor{{UserId: "ann", DeliveredSeq: 1}, {UserId: "bob", DeliveredSeq: 6, DeliveredTimeMs: base + 70}}
			}), acknowledged, "the cursor is at 6", false,
		},
		"acknowledged, another gateway does not answer": {
			about(func(f *facts) {
				f.gateways = []*gatewayv1.ExplainResponse{routed(at(6, 6, 6, stepQueued, stepWritten, stepAcked))}
				f.missing = []*adminv1.Missing{silent(serviceGateway, "gw-b")}
			}), acknowledged, "", false,
		},
		"acknowledged, and when is forgotten": {
			with(routed(at(6, 6, 6, stepQueued, stepWritten))), acknowledged, "bob has it: acknowledged by connection c1", false,
		},
		"acknowledged by one of two devices": {
			with(routed(at(6, 6, 4, stepQueued, stepWritten)), gateway("gw-b", path(stepRouted), at(6, 6, 6, stepQueued, stepWritten, stepAcked))),
			acknowledged, "gw-b", false,
		},
		"acknowledged on a connection that has ended": {
			with(routed(closed(at(6, 6, 6, stepQueued, stepWritten, stepAcked), errcode.CloseGoingAway, 900))), acknowledged, "", false,
		},
		"acknowledged by somebody who was removed later": {
			about(func(f *facts) {
				f.member, f.joined, f.cursor = false, 0, nil
				f.gateways = []*gatewayv1.ExplainResponse{routed(&gatewayv1.Trail{ConnectionId: "c1", OpenedMs: base, Steps: path(stepQueued, stepWritten, stepAcked)})}
			}), acknowledged, "", false,
		},
		"the gateway missed it and read it from history": {
			with(gateway("gw-a", path(stepMissed, stepFilled), at(6, 6, 6, stepQueued, stepWritten, stepAcked))), acknowledged, "filled from history", true,
		},
		"the connection caught up": {
			with(routed(at(6, 6, 6, stepCaught, stepWritten, stepAcked))), acknowledged, "filled from history", true,
		},
		"had it when it connected": {
			with(without(at(6, 6, 6, stepResumed))), acknowledged, "", false,
		},
		"their own": {
			about(func(f *facts) { f.event.Sender, f.cursor.DeliveredSeq = "bob", 5 }), acknowledged, "their own", false,
		},

		// Connected now.
		"written and not acknowledged": {
			with(routed(at(6, 6, 4, stepQueued, stepWritten))), written, "not acknowledged", false,
		},
		"written again and again": {
			with(routed(at(6, 6, 4, stepQueued, stepWritten, stepRetried, stepQueued, stepWritten, stepRetried))), written, "sent again 2 times", false,
		},
		"written from history": {
			with(gateway("gw-a", path(stepMissed, stepFilled), at(6, 6, 4, stepQueued, stepWritten))), written, "filled from history", true,
		},
		"written to one device, the other is slow": {
			with(routed(at(6, 6, 4, stepQueued)), gateway("gw-b", path(stepRouted), at(6, 6, 4, stepQueued, stepWritten))), written, "gw-b", false,
		},
		"written, though the steps are forgotten": {
			with(forgetful(at(6, 6, 4))), written, "", false,
		},
		"queued": {
			with(routed(at(6, 6, 4, stepQueued))), queued, "connection is slow", false,
		},
		"queued, another gateway does not answer": {
			about(func(f *facts) {
				f.gateways = []*gatewayv1.ExplainResponse{routed(at(6, 6, 4, stepQueued))}
				f.missing = []*adminv1.Missing{silent(serviceGateway, "gw-b")}
			}), queued, "", false,
		},
		"behind": {
			with(routed(at(6, 4, 4))), queued, "is at 4", false,
		},
		"reconnected after a slow close": {
			with(routed(closed(at(6, 4, 4), errcode.CloseSlow, 10), at(6, 6, 4, stepCaught, stepWritten))), written, "", true,
		},

		// Lost before the user's gateway.
		"published, not routed": {
			with(without(at(4, 4, 4))), notRouted, "It was published", false,
		},
		"routed, and held back because one before it was lost": {
			with(routed(at(3, 3, 3))), notRouted, "arrived live at the gateway, which has the conversation up to 3 only", false,
		},
		"routed, and held back because history is away": {
			with(routed(at(0, 4, 4))), notRouted, "could not read the head of the conversation from history yet", false,
		},
		"routed to another gateway only": {
			about(func(f *facts) {
				f.workers = []*deliveryv1.ExplainResponse{successor(false)}
				f.gateways = []*gatewayv1.ExplainResponse{without(at(4, 4, 4)), gateway("gw-b", path(stepRouted))}
			}), notRouted, "", false,
		},
		"republished, not routed": {
			about(func(f *facts) {
				f.workers = []*deliveryv1.ExplainResponse{successor(true)}
				f.gateways = []*gatewayv1.ExplainResponse{without(at(4, 4, 4))}
			}), notRouted, "", false,
		},
		"the gateway is not subscribed": {
			with(routed(deaf())), notRouted, "is not subscribed", false,
		},
		"the gateway forgot whether it listened": {
			with(forgetful(deaf())), unknown, "records of its gateway begin at", false,
		},
		"lost, and the user was removed since": {
			about(func(f *facts) {
				f.member, f.joined, f.cursor = false, 0, nil
				f.gateways = []*gatewayv1.ExplainResponse{without(deaf())}
			}), notRouted, "no longer a member", false,
		},
		"committed, the broker was away": {
			about(func(f *facts) {
				f.workers, f.gateways = []*deliveryv1.ExplainResponse{committer(false)}, []*gatewayv1.ExplainResponse{without(at(4, 4, 4))}
			}), notPublished, "could not publish it", false,
		},
		"the owner died before it published": {
			about(func(f *facts) {
				f.workers, f.gateways = []*deliveryv1.ExplainResponse{successor(false)}, []*gatewayv1.ExplainResponse{without(at(4, 4, 4))}
			}), notPublished, "has stopped", false,
		},
		"not known whether it was published, as a worker does not answer": {
			about(func(f *facts) {
				f.workers, f.gateways = nil, []*gatewayv1.ExplainResponse{without(at(4, 4, 4))}
				f.missing = []*adminv1.Missing{silent(serviceDelivery, "w-a")}
			}), notRouted, "no answer from delivery w-a", false,
		},

		// The user was connected.
		"closed as slow": {
			with(routed(closed(at(6, 5, 4, stepQueued), errcode.CloseSlow, 50))), slowClosed, "queue was full", false,
		},
		"closed as dead": {
			with(routed(closed(at(6, 6, 4, stepQueued, stepWritten, stepRetried, stepRetried), errcode.CloseNoAck, 9000))), notAcknowledged, "sent again 2 times", false,
		},
		"connection lost": {
			with(routed(closed(at(6, 6, 4, stepQueued, stepWritten), errcode.CloseCode(1006), 80))), connectionLost, "written and not acknowledged", false,
		},
		"disconnected by an operator before it came": {
			with(without(closed(at(4, 4, 4), errcode.CloseDisconnected, 1))), connectionLost, "disconnected", false,
		},
		"first slow, then lost": {
			with(routed(closed(at(6, 4, 4), errcode.CloseSlow, 50), closed(at(6, 6, 4, stepCaught), errcode.CloseCode(1006), 900))),
			connectionLost, "queued and not written", true,
		},
		"was connected, and a gateway does not answer": {
			about(func(f *facts) {
				f.gateways = []*gatewayv1.ExplainResponse{routed(closed(at(6, 6, 4, stepQueued), errcode.CloseSlow, 50))}
				f.missing = []*adminv1.Missing{silent(serviceGateway, "gw-b"), silent(serviceDelivery, "w-c")}
			}), unknown, "No answer from gateway gw-b", false,
		},
		"was connected, and a gateway has stopped since": {
			about(func(f *facts) {
				f.gateways = []*gatewayv1.ExplainResponse{routed(closed(at(6, 6, 4, stepQueued), errcode.CloseSlow, 50))}
				f.settledMs = base + 60
			}), slowClosed, "Whether bob reconnected before", false,
		},

		// Nothing is known.
		"offline": {
			with(without(), gateway("gw-b", path(stepRouted))), offline, "no connection since", false,
		},
		"went offline before": {
			with(without(closed(at(4, 4, 4), errcode.CloseGoingAway, -100))), offline, "", false,
		},
		"offline, and a gateway does not answer": {
			about(func(f *facts) {
				f.gateways, f.missing = []*gatewayv1.ExplainResponse{without()}, []*adminv1.Missing{silent(serviceGateway, "gw-b")}
			}), unknown, "No answer from gateway gw-b", false,
		},
		"offline, and a gateway has stopped since": {
			about(func(f *facts) { f.gateways, f.settledMs = []*gatewayv1.ExplainResponse{without()}, base+60 }), unknown, "is not known", false,
		},
		"offline now, earlier not known": {
			with(forgetful()), unknown, "is not known", false,
		},
		"no gateways at all": {
			with(), unknown, "no gateway is running", false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			found := test.facts.verdict()
			require.Equal(t, test.want, found.verdict, found.summary)
			require.Contains(t, found.summary, test.says)
			require.Equal(t, test.filled, found.filledLater)
			require.Regexp(t, `\.$`, found.summary)
		})
		seen[test.want] = true
	}
	for number, name := range adminv1.Verdict_name {
		if number != 0 {
			require.True(t, seen[adminv1.Verdict(number)], "%s is not tested", name)
		}
	}
}

// Steps of other events are ignored.
func TestVerdictIgnoresOtherEvents(t *testing.T) {
	other := at(4, 4, 4, stepQueued, stepWritten, stepAcked)
	for _, s := range other.GetSteps() {
		s.First, s.Last = 1, 4
	}
	require.Equal(t, notRouted, with(without(other)).verdict().verdict)
	for _, s := range other.GetSteps() {
		s.First, s.Last = 3, 9
	}
	require.Equal(t, acknowledged, with(without(other)).verdict().verdict)
}

func TestTimeline(t *testing.T) {
	f := about(func(f *facts) {
		f.gateways = []*gatewayv1.ExplainResponse{routed(closed(at(6, 6, 6, stepQueued, stepWritten, stepAcked), errcode.CloseGoingAway, 50))}
		f.cursor.DeliveredSeq, f.cursor.DeliveredTimeMs = 6, base+20
		f.cursor.ReadSeq, f.cursor.ReadTimeMs = 6, base+21
	})
	var what []string
	last := int64(0)
	for _, entry := range f.timeline() {
		require.LessOrEqual(t, last, entry.GetTimeNs())
		last = entry.GetTimeNs()
		what = append(what, entry.GetWhere()+": "+entry.GetWhat())
	}
	require.Equal(t, []string{
		"gw-a: connection c1 (device phone) was opened",
		"broker: accepted the command as message 9 of its partition",
		"w-a: committed it, in a batch of 2",
		"w-a: published it to the gateways",
		"gw-a: arrived live",
		"gw-a: was queued: connection c1 (device phone)",
		"gw-a: was written: connection c1 (device phone)",
		"gw-a: was acknowledged: connection c1 (device phone)",
		"history: the user's cursor moved to 6",
		"history: the user has read up to 6",
		"gw-a: connection c1 (device phone) ended: 4000, going_away",
	}, what)
	for number := range gatewayv1.StepKind_name {
		require.Equal(t, number != 0, steps[gatewayv1.StepKind(number)] != "", "every step has words")
	}
}

// The answer names the worker that committed the event; if that worker has stopped, the name comes from a gateway's record.
func TestCommitOfAWorkerThatIsGone(t *testing.T) {
	f := about(func(f *facts) {
		g := routed(at(6, 6, 4, stepQueued, stepWritten))
		g.Worker, g.CommittedNs = "w-gone", base*1e6
		f.gateways, f.workers = []*gatewayv1.ExplainResponse{g}, []*deliveryv1.ExplainResponse{successor(false)}
	})
	answer := f.explain()
	require.Equal(t, "w-gone", answer.GetWorker())
	require.Equal(t, base*1e6, answer.GetCommit().GetCommittedNs())
	require.Equal(t, written, answer.GetVerdict())
	require.Contains(t, answer.GetSummary(), "3ms after the commit")
}
