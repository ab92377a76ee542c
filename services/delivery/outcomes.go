package delivery

import (
	"time"

	"github.com/runnelhq/runnel/services/delivery/metrics"
	"github.com/runnelhq/runnel/services/delivery/source"
)

// countResults counts the results of a committed batch.
func countResults(m *metrics.Metrics, verdicts []verdict) {
	var committed, repeated, dead, late, unremembered int
	for i := range verdicts {
		switch v := &verdicts[i]; {
		case v.event != nil && v.repeated:
			repeated++
		case v.event != nil:
			committed++
		case v.late:
			late++
		case v.unremembered:
			unremembered++
		case v.refusal != nil:
			if c := m.Refused[v.refusal.GetCode()]; c != nil {
				c.Inc()
			} else {
				dead++ // an earlier copy was put aside
			}
		default:
			dead++
		}
	}
	m.Committed.Add(float64(committed))
	m.Repeated.Add(float64(repeated))
	m.DeadLettered.Add(float64(dead))
	m.Late.Add(float64(late))
	m.Unremembered.Add(float64(unremembered))
}

// observeCommitTimes observes how long the commands of a batch took until they were committed. The broker's clock may be ahead of ours.
func observeCommitTimes(m *metrics.Metrics, entries []source.Message, committed time.Time) {
	now := committed.UnixNano()
	for i := range entries {
		m.CommitTime.Observe(float64(max(now-entries[i].TimeNs, 0)) / 1e9)
	}
}
