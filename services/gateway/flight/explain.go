package flight

import (
	"cmp"
	"slices"
	"time"

	"github.com/runnelhq/runnel/pkg/ids"
	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"
)

// maxSteps limits the steps of one explanation.
const maxSteps = 100

// ExplainRoom adds the steps of an event in a room. It returns the time since which all steps are kept, in Unix ns.
func (r *Recorder) ExplainRoom(answer *gatewayv1.ExplainResponse, key Key, seq ids.Seq) (since int64) {
	if !r.on {
		return time.Now().UnixNano()
	}
	since = r.ofRoom(key).look(func(s *step) {
		switch s.kind() {
		case gatewayv1.StepKind_STEP_KIND_ROUTED, gatewayv1.StepKind_STEP_KIND_MISSED, gatewayv1.StepKind_STEP_KIND_GAP_FILLED:
			if s.isOf(key) && s.covers(seq) && len(answer.GetSteps()) < maxSteps {
				answer.Steps = append(answer.Steps, s.explain())
			}
		case stepCommitted:
			if s.isOf(key) && s.covers(seq) {
				answer.Worker, answer.CommittedNs = r.workers.name(s.conn), s.at
			}
		default: // steps of connections
		}
	})
	sortSteps(answer.GetSteps())
	return max(since, r.started.UnixNano())
}

// ExplainConnection adds the steps of an event on a connection.
func (r *Recorder) ExplainConnection(trail *gatewayv1.Trail, number uint32, key Key, seq ids.Seq) (since int64) {
	if !r.on {
		return time.Now().UnixNano()
	}
	var queued, writes []step
	since = r.ofConn(number).look(func(s *step) {
		if s.conn != number {
			return
		}
		switch kind := s.kind(); kind {
		case gatewayv1.StepKind_STEP_KIND_WRITTEN:
			writes = append(writes, *s)
		case gatewayv1.StepKind_STEP_KIND_QUEUED, gatewayv1.StepKind_STEP_KIND_CAUGHT_UP, gatewayv1.StepKind_STEP_KIND_HIDDEN,
			gatewayv1.StepKind_STEP_KIND_ACKNOWLEDGED, gatewayv1.StepKind_STEP_KIND_RETRIED, gatewayv1.StepKind_STEP_KIND_RESUMED_BEYOND:
			if s.room == uint32(key) && s.covers(seq) && len(trail.GetSteps()) < maxSteps {
				trail.Steps = append(trail.Steps, s.explain())
				if s.mark != 0 {
					queued = append(queued, *s)
				}
			}
		default: // steps of a room
		}
	})
	for i := range queued {
		q := &queued[i]
		for j := range writes {
			// Find the first write that reached the event's mark. The write may have been recorded before the event was.
			if w := &writes[j]; int32(w.mark-q.mark) >= 0 {
				w.last, w.what = q.last, q.what&^(1<<kindBits-1)|uint32(gatewayv1.StepKind_STEP_KIND_WRITTEN)
				if len(trail.GetSteps()) < maxSteps {
					trail.Steps = append(trail.Steps, w.explain())
				}
				break
			}
		}
	}
	sortSteps(trail.GetSteps())
	return max(since, r.started.UnixNano())
}

func (s *step) explain() *gatewayv1.Step {
	return &gatewayv1.Step{Kind: s.kind(), TimeNs: s.at, First: uint64(s.first()), Last: uint64(s.last)}
}

// sortSteps sorts steps by time. Steps with the same time keep their order.
func sortSteps(steps []*gatewayv1.Step) {
	slices.SortStableFunc(steps, func(a, b *gatewayv1.Step) int { return cmp.Compare(a.GetTimeNs(), b.GetTimeNs()) })
}
