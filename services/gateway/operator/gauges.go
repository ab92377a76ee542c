package gateway

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// registerGauges adds the figures that are read from the running gateway when somebody asks.
func (g *Gateway) registerGauges(registerer prometheus.Registerer) {
	gauge := func(name, help string, value func() float64) {
		registerer.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: "runnel", Subsystem: "gateway", Name: name, Help: help,
		}, value))
	}
	gauge("commands_pending", "Commands on their way.", func() float64 { return float64(g.submitter.Load().Pending()) })
	gauge("max_connections", "Connections that the gateway takes at most.", func() float64 { return float64(g.cfg.MaxConnections) })
	gauge("recent_bytes", "Size of recent events kept in memory.", func() float64 { return float64(g.hub.recentBytes.Load()) })
	gauge("explain_window_seconds", "How far back all steps of events are remembered.", func() float64 {
		return time.Since(g.recorder.Since()).Seconds()
	})
	gauge("level", "The installation's protocol level as this gateway knows it; 0 before the history service has answered.", func() float64 {
		return float64(g.level())
	})
	gauge("draining", "1 while the gateway is being stopped.", func() float64 {
		if g.gate.Closed() {
			return 1
		}
		return 0
	})
	registerer.MustRegister(newQueues(g))
}

// queues measures what waits, when somebody asks.
type queues struct {
	gw                *Gateway
	bytes, most, lane *prometheus.Desc
}

func newQueues(g *Gateway) *queues {
	return &queues{
		gw:    g,
		bytes: prometheus.NewDesc("runnel_gateway_send_queue_bytes", "Bytes waiting in the send queues of all connections.", nil, nil),
		most:  prometheus.NewDesc("runnel_gateway_send_queue_max_bytes", "Bytes waiting in the fullest send queue.", nil, nil),
		lane:  prometheus.NewDesc("runnel_gateway_lane_messages", "Live messages waiting to be handed out, by lane.", []string{"lane"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (q *queues) Describe(descs chan<- *prometheus.Desc) {
	descs <- q.bytes
	descs <- q.most
	descs <- q.lane
}

// Collect implements prometheus.Collector.
func (q *queues) Collect(metrics chan<- prometheus.Metric) {
	total, most := q.gw.queuedBytes()
	metrics <- prometheus.MustNewConstMetric(q.bytes, prometheus.GaugeValue, float64(total))
	metrics <- prometheus.MustNewConstMetric(q.most, prometheus.GaugeValue, float64(most))
	for i := range q.gw.hub.lanes {
		metrics <- prometheus.MustNewConstMetric(q.lane, prometheus.GaugeValue, float64(len(q.gw.hub.lanes[i].live)), strconv.Itoa(i))
	}
}
