package history

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
)

// metrics are what the service measures. Everything is resolved when it is made.
type metrics struct {
	appendEvents                 prometheus.Observer
	duplicates, rewinds, damaged prometheus.Counter

	append, watermark, lease, conversations, commands, read,
	listConversations, listMembers, heads, saveCursors *operation
}

// operation is one method.
type operation struct {
	name    string
	seconds prometheus.Observer
	refused map[reason]prometheus.Counter
	// logged keeps an outage from writing a line for every call.
	logged rate.Sometimes
}

// reason is why a call was not answered, as metrics call it.
type reason string

const (
	reasonInvalid     reason = "invalid"
	reasonWatermark   reason = "watermark"
	reasonSeqTaken    reason = "seq_taken"
	reasonNotFound    reason = "not_found"
	reasonTooLarge    reason = "too_large"
	reasonGivenUp     reason = "given_up"
	reasonUnavailable reason = "unavailable"
	reasonDefect      reason = "defect"
)

func newMetrics(registerer prometheus.Registerer) *metrics {
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "runnel_history_operation_seconds", Help: "Time the store took, by operation; append is the commit that a sender waits for.",
		Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
	}, []string{"operation"})
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "runnel_history_refused_total", Help: "Calls that were not answered, by operation and reason; watermark means that another worker owns the partition now.",
	}, []string{"operation", "reason"})
	events := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "runnel_history_append_events", Help: "Events in an append that was committed.", Buckets: []float64{0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512},
	})
	duplicates := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "runnel_history_duplicates_total", Help: "Commands that had been committed before and were answered with their first outcome.",
	})
	rewinds := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "runnel_history_watermark_rewinds_total", Help: "Appends that moved a watermark back in its stream. Right only after the broker lost acknowledged commands.",
	})
	damaged := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "runnel_history_damaged_events_total", Help: "Events that were read and whose stored body cannot be decoded. Above 0 is an alarm: run runnel verify.",
	})
	registerer.MustRegister(seconds, refused, events, duplicates, rewinds, damaged)

	resolve := func(name string) *operation {
		o := &operation{
			name: name, seconds: seconds.WithLabelValues(name), refused: map[reason]prometheus.Counter{},
			logged: rate.Sometimes{First: 1, Interval: time.Second},
		}
		for _, r := range []reason{
			reasonInvalid, reasonWatermark, reasonSeqTaken, reasonNotFound, reasonTooLarge, reasonGivenUp, reasonUnavailable, reasonDefect,
		} {
			o.refused[r] = refused.WithLabelValues(name, string(r))
		}
		return o
	}
	return &metrics{
		appendEvents: events, duplicates: duplicates, rewinds: rewinds, damaged: damaged,
		append: resolve("append"), watermark: resolve("watermark"), lease: resolve("lease"), conversations: resolve("conversations"),
		commands: resolve("commands"), read: resolve("read"), listConversations: resolve("list_conversations"),
		listMembers: resolve("list_members"), heads: resolve("heads"), saveCursors: resolve("save_cursors"),
	}
}
