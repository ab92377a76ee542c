package operator

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// RegisterGauges adds the metrics that are read from the running gateway at each scrape.
func (s *Server) RegisterGauges(registerer prometheus.Registerer) {
	gauge := func(name, help string, value func() float64) {
		registerer.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: "runnel", Subsystem: "gateway", Name: name, Help: help,
		}, value))
	}
	gauge("commands_pending", "Commands that wait for an outcome.", func() float64 { return float64(s.deps.PendingCommands()) })
	gauge("max_connections", "Maximum number of connections to the gateway.", func() float64 { return float64(s.deps.MaxConnections) })
	gauge("recent_bytes", "Size of recent events kept in memory.", func() float64 { return float64(s.deps.Rooms.RecentBytes()) })
	gauge("explain_window_seconds", "How far back all steps of events are kept.", func() float64 {
		return time.Since(s.deps.Recorder.Since()).Seconds()
	})
	gauge("level", "The installation's protocol level as this gateway knows it; 0 before the history service has answered.", func() float64 {
		return float64(s.deps.Level())
	})
	gauge("draining", "1 while the gateway is being stopped.", func() float64 {
		if s.deps.Draining() {
			return 1
		}
		return 0
	})
	registerer.MustRegister(newQueues(&s.deps))
}

// queues measures queue lengths at each scrape.
type queues struct {
	deps               *Deps
	bytes, most, shard *prometheus.Desc
}

func newQueues(deps *Deps) *queues {
	return &queues{
		deps:  deps,
		bytes: prometheus.NewDesc("runnel_gateway_send_queue_bytes", "Bytes waiting in the send queues of all connections.", nil, nil),
		most:  prometheus.NewDesc("runnel_gateway_send_queue_max_bytes", "Bytes waiting in the fullest send queue.", nil, nil),
		shard: prometheus.NewDesc("runnel_gateway_shard_messages", "Live messages waiting to be distributed, by shard.", []string{"shard"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (q *queues) Describe(descs chan<- *prometheus.Desc) {
	descs <- q.bytes
	descs <- q.most
	descs <- q.shard
}

// Collect implements prometheus.Collector.
func (q *queues) Collect(metrics chan<- prometheus.Metric) {
	total, most := q.deps.Sessions.QueuedBytes()
	metrics <- prometheus.MustNewConstMetric(q.bytes, prometheus.GaugeValue, float64(total))
	metrics <- prometheus.MustNewConstMetric(q.most, prometheus.GaugeValue, float64(most))
	for i, waiting := range q.deps.Rooms.Waiting() {
		metrics <- prometheus.MustNewConstMetric(q.shard, prometheus.GaugeValue, float64(waiting), strconv.Itoa(i))
	}
}
