package delivery

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/runnelhq/runnel/pkg/errcode"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// metrics are all of the service's metrics, resolved once.
type metrics struct {
	owned     prometheus.Gauge
	watermark *prometheus.GaugeVec
	lag       *prometheus.GaugeVec
	stopped   *prometheus.GaugeVec

	batch         prometheus.Histogram
	appendTime    prometheus.Histogram
	appendRetries prometheus.Counter
	committed     prometheus.Counter
	repeated      prometheus.Counter
	deadLettered  prometheus.Counter
	refused       map[conversationv1.ErrorCode]prometheus.Counter

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

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
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
		Name: "runnel_delivery_commands_total", Help: "Commands by outcome: committed, repeated, dead_lettered, or the code they were refused with.",
	}, []string{"outcome"})
	owned := prometheus.NewGauge(prometheus.GaugeOpts{Name: "runnel_delivery_partitions_owned", Help: "Partitions this worker works on."})
	all = append(all, commands, owned)
	sizes := prometheus.ExponentialBuckets(1, 2, 11)
	m := &metrics{
		owned:     owned,
		watermark: perPartition("watermark", "Last committed stream sequence of each partition this worker owns."),
		lag:       perPartition("lag_commands", "Commands in the stream that are not committed yet, when last looked at."),
		stopped:   perPartition("partition_stopped", "1 while a partition is stopped with an alarm: a hole in its stream, or a store that refuses everything."),

		batch:         histogram("batch_commands", "Commands in one append.", sizes),
		appendTime:    histogram("append_seconds", "Time of one append, as the worker sees it.", prometheus.ExponentialBuckets(0.0002, 2, 16)),
		appendRetries: counter("append_retries_total", "Appends that had to be tried again."),
		committed:     commands.WithLabelValues("committed"),
		repeated:      commands.WithLabelValues("repeated"),
		deadLettered:  commands.WithLabelValues("dead_lettered"),
		refused:       map[conversationv1.ErrorCode]prometheus.Counter{},

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

// count counts the verdicts of a committed batch.
func (m *metrics) count(verdicts []verdict) {
	var committed, repeated, dead int
	for i := range verdicts {
		switch v := &verdicts[i]; {
		case v.event != nil && v.repeated:
			repeated++
		case v.event != nil:
			committed++
		case v.refusal != nil:
			if c := m.refused[v.refusal.GetCode()]; c != nil {
				c.Inc()
			}
		default:
			dead++
		}
	}
	m.committed.Add(float64(committed))
	m.repeated.Add(float64(repeated))
	m.deadLettered.Add(float64(dead))
}

// gauges are one partition's gauges, resolved once for each time it is owned.
type gauges struct {
	watermark, lag, stopped prometheus.Gauge
	forget                  func()
}

func (m *metrics) partition(p int) gauges {
	label := strconv.Itoa(p)
	return gauges{
		watermark: m.watermark.WithLabelValues(label),
		lag:       m.lag.WithLabelValues(label),
		stopped:   m.stopped.WithLabelValues(label),
		// Who does not own a partition must not report on it: the owner's figures would be drowned by old ones.
		forget: func() {
			m.watermark.DeleteLabelValues(label)
			m.lag.DeleteLabelValues(label)
			m.stopped.DeleteLabelValues(label)
		},
	}
}
