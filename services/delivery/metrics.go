package delivery

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/runnelhq/runnel/pkg/errcode"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// metrics are all of the service's metrics, resolved once.
type metrics struct {
	owned     prometheus.Gauge
	ownership *prometheus.GaugeVec
	watermark *prometheus.GaugeVec
	lag       *prometheus.GaugeVec
	intake    *prometheus.GaugeVec
	fill      *prometheus.GaugeVec
	stopped   *prometheus.GaugeVec
	window    *prometheus.GaugeVec
	refusals  *prometheus.GaugeVec

	leaseFailures prometheus.Counter
	moves         prometheus.Counter

	batch         prometheus.Histogram
	appendTime    prometheus.Histogram
	appendRetries prometheus.Counter
	readRetries   prometheus.Counter
	commitTime    prometheus.Histogram
	publishTime   prometheus.Histogram
	committed     prometheus.Counter
	repeated      prometheus.Counter
	deadLettered  prometheus.Counter
	late          prometheus.Counter
	refused       map[conversationv1.ErrorCode]prometheus.Counter
	unremembered  prometheus.Counter
	clockSkew     prometheus.Counter

	purged        prometheus.Counter
	purgedEarly   prometheus.Counter
	purgeFailures prometheus.Counter
	tooNew        prometheus.Counter

	takeovers   prometheus.Counter
	superseded  prometheus.Counter
	republished prometheus.Counter
	replaced    prometheus.Counter
	rewound     prometheus.Counter

	publishFailures prometheus.Counter
	receipts        prometheus.Counter
	acksDropped     prometheus.Counter
	flushed         prometheus.Histogram
	flushFailures   prometheus.Counter
}

// newMetrics registers the metrics. since is the time from which on commits are remembered.
func newMetrics(reg prometheus.Registerer, partitions int, since func() time.Time) (*metrics, error) {
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
		Name: "runnel_delivery_commands_total", Help: "Commands by outcome: committed, repeated, dead_lettered, late (not carried out, for their gateway had given them up), or the code they were refused with.",
	}, []string{"outcome"})
	owned := prometheus.NewGauge(prometheus.GaugeOpts{Name: "runnel_delivery_partitions_owned", Help: "Partitions this worker works on."})
	window := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "runnel_delivery_explain_window_seconds", Help: "How far back this worker remembers commits, for explaining what became of an event.",
	}, func() float64 { return time.Since(since()).Seconds() })
	total := prometheus.NewGauge(prometheus.GaugeOpts{Name: "runnel_delivery_partitions", Help: "Partitions of the installation, whoever works on them."})
	total.Set(float64(partitions))
	all = append(all, commands, owned, total, window)
	sizes := prometheus.ExponentialBuckets(1, 2, 11)
	m := &metrics{
		owned:     owned,
		ownership: perPartition("partition_owned", "1 for each partition this worker works on."),
		watermark: perPartition("watermark", "Last committed stream sequence of each partition this worker owns."),
		lag:       perPartition("lag_commands", "Commands in the stream that are not committed yet, when last looked at."),
		intake:    perPartition("intake_commands", "Commands that were read from the stream and wait for the append in flight."),
		fill:      perPartition("stream_fill_ratio", "How full each partition's stream is: bytes it holds of those it may. Above 0.9 committed commands are purged that a restore might need; at 1 new commands are refused."),
		stopped:   perPartition("partition_stopped", "1 while a partition is stopped with an alarm: a hole in its stream, a command of a newer version, clocks that disagree, or a store that refuses everything."),
		window:    perPartition("restore_window_seconds", "How far behind the watermark of each partition a restored database may be and still catch up from the stream."),
		refusals:  perPartition("refusals_remembered", "Refusals of each partition that no later copy of the command may get around."),

		leaseFailures: counter("lease_renewal_failures_total", "Renewals of the leases that failed."),
		moves:         counter("moves_total", "Partitions that were given up because an operator wanted them on another worker."),

		batch:         histogram("batch_commands", "Commands in one append.", sizes),
		appendTime:    histogram("append_seconds", "Time of one append, as the worker sees it.", prometheus.ExponentialBuckets(0.0002, 2, 16)),
		appendRetries: counter("append_retries_total", "Appends that had to be tried again."),
		readRetries:   counter("read_retries_total", "Questions to the store that had to be asked again."),
		commitTime:    histogram("accepted_to_committed_seconds", "Time from the broker's taking of a command until its outcome was committed, by the clocks of both.", prometheus.ExponentialBuckets(0.0005, 2, 18)),
		publishTime:   histogram("committed_to_published_seconds", "Time from a commit until the broker had all that is told of it.", prometheus.ExponentialBuckets(0.00002, 2, 16)),
		committed:     commands.WithLabelValues("committed"),
		repeated:      commands.WithLabelValues("repeated"),
		deadLettered:  commands.WithLabelValues("dead_lettered"),
		late:          commands.WithLabelValues("late"),
		refused:       map[conversationv1.ErrorCode]prometheus.Counter{},
		unremembered:  counter("refusals_unremembered_total", "Commands that would have been refused and were answered as unknown, because there was no room to remember the refusal."),
		clockSkew:     counter("clock_skew_commands_total", "Commands that entered the stream more than 30 s before or after their gateway admitted them."),

		purged:        counter("purged_messages_total", "Committed commands that were purged from the streams."),
		purgedEarly:   counter("purged_early_messages_total", "Committed commands that were purged because a stream was nearly full, although a restore from the last backup would need them."),
		purgeFailures: counter("purge_failures_total", "Times that a stream could not be looked at or purged."),
		tooNew:        counter("too_new_total", "Times that a partition was stopped or handed over because of a command of a newer version."),

		takeovers:   counter("takeovers_total", "Times that work on a partition was begun."),
		superseded:  counter("superseded_total", "Appends refused because another worker had moved the watermark."),
		republished: counter("republished_events_total", "Events published again after a takeover."),
		replaced:    counter("stream_replaced_total", "Times that a stream was found lost and made anew."),
		rewound:     counter("stream_rewound_total", "Times that a stream was found to have lost acknowledged messages at its end."),

		publishFailures: counter("publish_failures_total", "Messages to gateways that could not be published."),
		receipts:        counter("receipts_total", "Receipts published."),
		acksDropped:     counter("acks_dropped_total", "Acknowledgements dropped because too many waited or they made no sense."),
		flushed:         histogram("cursor_flush_cursors", "Cursors stored at once.", sizes),
		flushFailures:   counter("cursor_flush_failures_total", "Times that cursors could not be stored and were kept for the next try."),
	}
	for _, code := range errcode.Codes {
		if code.Code != conversationv1.ErrorCode_ERROR_CODE_DEAD_LETTERED {
			m.refused[code.Code] = commands.WithLabelValues(code.Name)
		}
	}
	for _, c := range all {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// gauges are one partition's gauges, resolved once for each time it is owned.
type gauges struct {
	owned, watermark, lag, intake, fill, stopped, window, refusals prometheus.Gauge

	forget func()
}

func (m *metrics) partition(p int) gauges {
	label := strconv.Itoa(p)
	return gauges{
		owned:     m.ownership.WithLabelValues(label),
		intake:    m.intake.WithLabelValues(label),
		watermark: m.watermark.WithLabelValues(label),
		lag:       m.lag.WithLabelValues(label),
		fill:      m.fill.WithLabelValues(label),
		stopped:   m.stopped.WithLabelValues(label),
		window:    m.window.WithLabelValues(label),
		refusals:  m.refusals.WithLabelValues(label),
		// Who does not own a partition must not report on it: the owner's figures would be drowned by old ones.
		forget: func() {
			for _, g := range []*prometheus.GaugeVec{m.ownership, m.watermark, m.lag, m.intake, m.fill, m.stopped, m.window, m.refusals} {
				g.DeleteLabelValues(label)
			}
		},
	}
}
