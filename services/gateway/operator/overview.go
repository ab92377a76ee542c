package gateway

import (
	"context"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"
)

// Overview is what a gateway is and does, in numbers: for a status page, which makes rates of the totals.
type Overview struct {
	Gateway  string    `json:"gateway"`
	Version  string    `json:"version"`
	Started  time.Time `json:"started"`
	Draining bool      `json:"draining"`

	Connections   int `json:"connections"`
	Users         int `json:"users"`
	Conversations int `json:"conversations"`
	// CommandsPending are on their way to an outcome.
	CommandsPending int `json:"commands_pending"`
	// QueuedBytes wait in all send queues, LargestQueue in the fullest.
	QueuedBytes  uint64 `json:"queued_bytes"`
	LargestQueue uint64 `json:"largest_queue"`
	// ExplainWindow is how far back all steps of events are remembered.
	ExplainWindow time.Duration `json:"explain_window"`

	// Totals since the start.
	Connects   uint64 `json:"connects"`
	Commands   uint64 `json:"commands"`
	Deliveries uint64 `json:"deliveries"`
	Retries    uint64 `json:"retries"`
	Gaps       uint64 `json:"gaps"`
	BytesIn    uint64 `json:"bytes_in"`
	BytesOut   uint64 `json:"bytes_out"`
}

// Overview measures the gateway. It looks at every connection, so it is for the times when somebody asks.
func (g *Gateway) Overview() Overview {
	o := Overview{
		Gateway: g.id, Version: version(), Started: g.recorder.Started(), Draining: g.gate.Closed(),
		Conversations: g.hub.count(), ExplainWindow: time.Since(g.recorder.Since()),
		Connects: total(g.metrics.Connects), Deliveries: total(g.metrics.Deliveries), Retries: total(g.metrics.Retries),
		Gaps: total(g.metrics.Gaps), BytesIn: total(g.metrics.BytesIn), BytesOut: total(g.metrics.BytesOut),
	}
	for _, outcome := range g.metrics.Outcomes {
		o.Commands += total(outcome)
	}
	if submitter := g.submitter.Load(); submitter != nil {
		o.CommandsPending = submitter.Pending()
	}
	g.mu.Lock()
	o.Connections = len(g.conns)
	for _, u := range g.users {
		if len(u.conns) > 0 { // others wait for their allowance to fill up
			o.Users++
		}
	}
	g.mu.Unlock()
	o.QueuedBytes, o.LargestQueue = g.queuedBytes()
	return o
}

// GetGateway tells what this gateway is and does.
func (s *Server) GetGateway(context.Context, *gatewayv1.GetGatewayRequest) (*gatewayv1.GetGatewayResponse, error) {
	o := s.gw.Overview()
	return &gatewayv1.GetGatewayResponse{
		Gateway: o.Gateway, StartedMs: o.Started.UnixMilli(), Connections: uint32(o.Connections), Users: uint32(o.Users),
		Conversations: uint32(o.Conversations), QueuedBytes: o.QueuedBytes, Draining: o.Draining, Version: o.Version,
	}, nil
}

// queuedBytes adds up what waits in the send queues of all connections, and finds the fullest.
func (g *Gateway) queuedBytes() (sum, most uint64) {
	for _, c := range g.connections() {
		c.sendMu.Lock()
		queued := uint64(max(c.out.queued, 0))
		c.sendMu.Unlock()
		sum, most = sum+queued, max(most, queued)
	}
	return sum, most
}

func total(counter prometheus.Counter) uint64 {
	var value dto.Metric
	if err := counter.Write(&value); err != nil {
		return 0
	}
	return uint64(value.GetCounter().GetValue())
}

// version is that of the program: its module's, or the commit it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			return setting.Value
		}
	}
	return info.Main.Version
}
