package gateway

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/errcode"
)

// metrics counts what a gateway does. Labels come from fixed catalogues only.
type metrics struct {
	registerer                            prometheus.Registerer
	connections, rooms                    prometheus.Gauge
	connects, framesIn, bytesIn, bytesOut prometheus.Counter
	writes, deliveries, retries           prometheus.Counter
	gaps, gapEvents, filled               prometheus.Counter
	accepted, committed                   prometheus.Observer
	closes, refusals, outcomes            *prometheus.CounterVec
}

func newMetrics(registerer prometheus.Registerer) *metrics {
	m := &metrics{registerer: registerer}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "runnel", Subsystem: "gateway", Name: name, Help: help})
		registerer.MustRegister(g)
		return g
	}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "runnel", Subsystem: "gateway", Name: name, Help: help})
		registerer.MustRegister(c)
		return c
	}
	vector := func(name, help, label string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "runnel", Subsystem: "gateway", Name: name, Help: help}, []string{label})
		registerer.MustRegister(v)
		return v
	}
	m.connections = gauge("connections", "Live connections.")
	m.rooms = gauge("rooms", "Conversations that somebody here listens to.")
	m.connects = counter("connects_total", "Connections taken.")
	m.framesIn = counter("frames_in_total", "Frames from clients.")
	m.bytesIn = counter("bytes_in_total", "Bytes of frames from clients.")
	m.bytesOut = counter("bytes_out_total", "Bytes written to clients.")
	m.writes = counter("writes_total", "Writes to sockets; one may carry many frames.")
	m.deliveries = counter("deliveries_total", "Events queued to connections.")
	m.retries = counter("retries_total", "Times that unacknowledged events were sent again.")
	m.gaps = counter("gaps_total", "Live messages that did not follow what was known.")
	m.gapEvents = counter("gap_events_total", "Events read from history to fill such gaps.")
	m.filled = counter("filled_total", "Events queued by fillers: resumed, repeated or late.")
	m.closes = vector("closes_total", "Connections ended, by close code.", "code")
	m.refusals = vector("refusals_total", "Requests and connections refused, by reason.", "reason")
	m.outcomes = vector("commands_total", "Commands answered, by outcome.", "outcome")
	latency := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: "runnel", Subsystem: "gateway", Name: "command_seconds",
		Help:    "Time from a command's frame to each rung of the ladder.",
		Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
	}, []string{"rung"})
	registerer.MustRegister(latency)
	m.accepted, m.committed = latency.WithLabelValues("accepted"), latency.WithLabelValues("committed")
	return m
}

// watch adds the figures that are read from the running gateway when somebody asks.
func (m *metrics) watch(g *Gateway) {
	gauge := func(name, help string, value func() float64) {
		m.registerer.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: "runnel", Subsystem: "gateway", Name: name, Help: help,
		}, value))
	}
	gauge("commands_pending", "Commands on their way.", func() float64 { return float64(g.submitter.Pending()) })
	gauge("recent_bytes", "Size of recent events kept in memory.", func() float64 { return float64(g.hub.recentBytes.Load()) })
}

// refused counts a refusal; reasons come from the code, never from a client.
func (m *metrics) refused(reason string) { m.refusals.WithLabelValues(reason).Inc() }

func (m *metrics) closed(code errcode.CloseCode) { m.closes.WithLabelValues(code.String()).Inc() }

func (m *metrics) outcome(outcome *conversationv1.Outcome, took time.Duration) {
	switch {
	case outcome.GetError() != nil:
		m.outcomes.WithLabelValues(errcode.Name(outcome.GetError().GetCode())).Inc()
	case outcome.GetRepeated():
		m.outcomes.WithLabelValues("repeated").Inc()
	default:
		m.outcomes.WithLabelValues("committed").Inc()
		m.committed.Observe(took.Seconds())
	}
}
