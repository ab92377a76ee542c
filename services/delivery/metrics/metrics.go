// Package metrics holds the Prometheus metrics of a delivery worker. Other packages update them; this package defines
// names and help texts.
package metrics

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/ids"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// Metrics are all metrics of the service. They are looked up once.
type Metrics struct {
	Owned     prometheus.Gauge
	ownership *prometheus.GaugeVec
	watermark *prometheus.GaugeVec
	lag       *prometheus.GaugeVec
	Queue     *prometheus.GaugeVec
	fill      *prometheus.GaugeVec
	stopped   *prometheus.GaugeVec
	window    *prometheus.GaugeVec
	refusals  *prometheus.GaugeVec

	LeaseFailures prometheus.Counter
	Moves         prometheus.Counter

	Batch         prometheus.Histogram
	AppendTime    prometheus.Histogram
	AppendRetries prometheus.Counter
	ReadRetries   prometheus.Counter
	CommitTime    prometheus.Histogram
	PublishTime   prometheus.Histogram
	Committed     prometheus.Counter
	Repeated      prometheus.Counter
	DeadLettered  prometheus.Counter
	Late          prometheus.Counter
	Refused       map[conversationv1.ErrorCode]prometheus.Counter
	Unremembered  prometheus.Counter
	ClockSkew     prometheus.Counter

	Purged        prometheus.Counter
	PurgedEarly   prometheus.Counter
	PurgeFailures prometheus.Counter
	TooNew        prometheus.Counter

	Takeovers   prometheus.Counter
	Superseded  prometheus.Counter
	Republished prometheus.Counter
	Replaced    prometheus.Counter
	Rewound     prometheus.Counter

	PublishFailures prometheus.Counter
	Receipts        prometheus.Counter
	AcksDropped     prometheus.Counter
	Flushed         prometheus.Histogram
	FlushFailures   prometheus.Counter
}

// New registers the metrics. since returns the time since which every commit is recorded.
func New(reg prometheus.Registerer, partitions int, since func() time.Time) (*Metrics, error) {
	var all []prometheus.Collector
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "runnel_delivery_" + name, Help: help})
		all = append(all, c)
		return c
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "runnel_delivery_" + name, Help: help, Buckets: buckets})
		all = append(all, h)
		return h
	}
	perPartition := func(name, help string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "runnel_delivery_" + name, Help: help}, []string{"partition"})
		all = append(all, g)
		return g
	}
	commands := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "runnel_delivery_commands_total", Help: "Commands by outcome: committed, repeated, dead_lettered, late (not carried out because their gateway had given up waiting), or the code they were refused with.",
	}, []string{"outcome"})
	owned := prometheus.NewGauge(prometheus.GaugeOpts{Name: "runnel_delivery_partitions_owned", Help: "Partitions this worker works on."})
	window := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "runnel_delivery_explain_window_seconds", Help: "How far back this worker can explain what happened to an event.",
	}, func() float64 { return time.Since(since()).Seconds() })
	total := prometheus.NewGauge(prometheus.GaugeOpts{Name: "runnel_delivery_partitions", Help: "Partitions of the installation."})
	total.Set(float64(partitions))
	all = append(all, commands, owned, total, window)
	sizes := prometheus.ExponentialBuckets(1, 2, 11)
	m := &Metrics{
		Owned:     owned,
		ownership: perPartition("partition_owned", "1 for each partition this worker works on."),
		watermark: perPartition("watermark", "Last committed stream sequence of each partition this worker owns."),
		lag:       perPartition("lag_commands", "Commands in the stream that are not committed yet, when last measured."),
		Queue:     perPartition("intake_commands", "Commands that were read from the stream and wait until the append in flight has ended."),
		fill:      perPartition("stream_fill_ratio", "Fill of each partition's stream, as a share of its byte limit. Above 0.9 committed commands are purged that a restore might need; at 1 new commands are refused."),
		stopped:   perPartition("partition_stopped", "1 while a partition is stopped with an alarm: a hole in its stream, a command of a newer version, clocks that disagree, or a store that rejects everything."),
		window:    perPartition("restore_window_seconds", "How far behind the watermark of each partition a restored database may be and still catch up from the stream."),
		refusals:  perPartition("refusals_remembered", "Refusals in memory of each partition, which answer later copies of the same command."),

		LeaseFailures: counter("lease_renewal_failures_total", "Lease renewals that failed."),
		Moves:         counter("moves_total", "Partitions that were handed over because an operator moved them to another worker."),

		Batch:         histogram("batch_commands", "Number of commands in one append.", sizes),
		AppendTime:    histogram("append_seconds", "Time of one append, as the worker sees it.", prometheus.ExponentialBuckets(0.0002, 2, 16)),
		AppendRetries: counter("append_retries_total", "Appends that failed and were retried."),
		ReadRetries:   counter("read_retries_total", "Reads from the store that failed and were retried."),
		CommitTime:    histogram("accepted_to_committed_seconds", "Time from the broker's acceptance of a command until its outcome was committed, by the clocks of both.", prometheus.ExponentialBuckets(0.0005, 2, 18)),
		PublishTime:   histogram("committed_to_published_seconds", "Time from a commit until its results and events were published.", prometheus.ExponentialBuckets(0.00002, 2, 16)),
		Committed:     commands.WithLabelValues("committed"),
		Repeated:      commands.WithLabelValues("repeated"),
		DeadLettered:  commands.WithLabelValues("dead_lettered"),
		Late:          commands.WithLabelValues("late"),
		Refused:       map[conversationv1.ErrorCode]prometheus.Counter{},
		Unremembered:  counter("refusals_unremembered_total", "Commands that would have been refused and were answered as unknown, because the memory of refusals was full."),
		ClockSkew:     counter("clock_skew_commands_total", "Commands that entered the stream more than 30 s before or after their gateway admitted them."),

		Purged:        counter("purged_messages_total", "Committed commands that were purged from the streams."),
		PurgedEarly:   counter("purged_early_messages_total", "Committed commands that were purged because a stream was nearly full, although a restore from the last backup would need them."),
		PurgeFailures: counter("purge_failures_total", "Times that a stream could not be inspected or purged."),
		TooNew:        counter("too_new_total", "Times that a partition was stopped or handed over because of a command of a newer version."),

		Takeovers:   counter("takeovers_total", "Takeovers: times that work on a partition started."),
		Superseded:  counter("superseded_total", "Appends refused because another worker had moved the watermark."),
		Republished: counter("republished_events_total", "Events published again after a takeover."),
		Replaced:    counter("stream_replaced_total", "Times that a stream was found lost and created again."),
		Rewound:     counter("stream_rewound_total", "Times that a stream was found to have lost acknowledged messages at its end."),

		PublishFailures: counter("publish_failures_total", "Messages to gateways that could not be published."),
		Receipts:        counter("receipts_total", "Receipts published."),
		AcksDropped:     counter("acks_dropped_total", "Acknowledgements dropped because too many waited or they were invalid."),
		Flushed:         histogram("cursor_flush_cursors", "Number of cursors stored in one call.", sizes),
		FlushFailures:   counter("cursor_flush_failures_total", "Times that cursors could not be stored and were kept for the next attempt."),
	}
	for _, code := range errcode.Codes {
		if code.Code != conversationv1.ErrorCode_ERROR_CODE_DEAD_LETTERED {
			m.Refused[code.Code] = commands.WithLabelValues(code.Name)
		}
	}
	for _, c := range all {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// Gauges are the gauges of one partition. They are looked up once per takeover of the partition.
type Gauges struct {
	Owned, Watermark, Lag, Queue, Fill, Stopped, Window, Refusals prometheus.Gauge

	Forget func()
}

// Partition returns the gauges of a partition.
func (m *Metrics) Partition(p ids.Partition) Gauges {
	label := strconv.Itoa(int(p))
	return Gauges{
		Owned:     m.ownership.WithLabelValues(label),
		Queue:     m.Queue.WithLabelValues(label),
		Watermark: m.watermark.WithLabelValues(label),
		Lag:       m.lag.WithLabelValues(label),
		Fill:      m.fill.WithLabelValues(label),
		Stopped:   m.stopped.WithLabelValues(label),
		Window:    m.window.WithLabelValues(label),
		Refusals:  m.refusals.WithLabelValues(label),
		// A worker that lost a partition must not report it: its old values would hide the values of the present owner.
		Forget: func() {
			for _, g := range []*prometheus.GaugeVec{m.ownership, m.watermark, m.lag, m.Queue, m.fill, m.stopped, m.window, m.refusals} {
				g.DeleteLabelValues(label)
			}
		},
	}
}
