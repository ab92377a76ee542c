package operator

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"

	"github.com/runnelhq/runnel/pkg/buildinfo"
)

// Overview holds the identity and the figures of a gateway, for a status page, which computes rates from the totals.
type Overview struct {
	Gateway  string    `json:"gateway"`
	Version  string    `json:"version"`
	Started  time.Time `json:"started"`
	Draining bool      `json:"draining"`

	Connections   int `json:"connections"`
	Users         int `json:"users"`
	Conversations int `json:"conversations"`
	// CommandsPending is the number of commands that wait for an outcome.
	CommandsPending int `json:"commands_pending"`
	// QueuedBytes is the number of bytes in all send queues. LargestQueue is the number of bytes in the fullest one.
	QueuedBytes  uint64 `json:"queued_bytes"`
	LargestQueue uint64 `json:"largest_queue"`
	// ExplainWindow is how far back all steps of events are kept.
	ExplainWindow time.Duration `json:"explain_window"`

	// The totals are counted from the start of the gateway.
	Connects   uint64 `json:"connects"`
	Commands   uint64 `json:"commands"`
	Deliveries uint64 `json:"deliveries"`
	Retries    uint64 `json:"retries"`
	Gaps       uint64 `json:"gaps"`
	BytesIn    uint64 `json:"bytes_in"`
	BytesOut   uint64 `json:"bytes_out"`
}

// Overview measures the gateway. It visits every connection, so call it only on request.
func (s *Server) Overview() Overview {
	m := s.deps.Metrics
	o := Overview{
		Gateway: s.deps.Gateway, Version: buildinfo.Read().Version(), Started: s.deps.Recorder.Started(), Draining: s.deps.Draining(),
		Conversations: s.deps.Rooms.Count(), CommandsPending: s.deps.PendingCommands(), ExplainWindow: time.Since(s.deps.Recorder.Since()),
		Connects: total(m.Connects), Deliveries: total(m.Deliveries), Retries: total(m.Retries),
		Gaps: total(m.Gaps), BytesIn: total(m.BytesIn), BytesOut: total(m.BytesOut),
	}
	for _, outcome := range m.Outcomes {
		o.Commands += total(outcome)
	}
	o.Connections, o.Users = s.deps.Sessions.Count()
	o.QueuedBytes, o.LargestQueue = s.deps.Sessions.QueuedBytes()
	return o
}

// GetGateway returns the identity and the state of this gateway.
func (s *Server) GetGateway(context.Context, *gatewayv1.GetGatewayRequest) (*gatewayv1.GetGatewayResponse, error) {
	o := s.Overview()
	return &gatewayv1.GetGatewayResponse{
		Gateway: o.Gateway, StartedMs: o.Started.UnixMilli(), Connections: uint32(o.Connections), Users: uint32(o.Users),
		Conversations: uint32(o.Conversations), QueuedBytes: o.QueuedBytes, Draining: o.Draining, Version: o.Version,
	}, nil
}

func total(counter prometheus.Counter) uint64 {
	var value dto.Metric
	if err := counter.Write(&value); err != nil {
		return 0
	}
	return uint64(value.GetCounter().GetValue())
}
