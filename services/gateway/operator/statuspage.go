package operator

import (
	"context"
	"fmt"
	"strconv"
	"time"

	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"

	"github.com/runnelhq/runnel/pkg/statuspage"

	"github.com/runnelhq/runnel/services/gateway/metrics"
)

// Stages returns the stages of a message's path that a gateway measures.
func Stages() []statuspage.Stage {
	latency := func(rung string) statuspage.Series {
		return statuspage.Series{Metric: "runnel_gateway_command_seconds", Label: "rung", Is: rung}
	}
	return []statuspage.Stage{
		{
			Name: "Accepted", Meaning: "the broker holds it", Rate: latency("accepted"), Latency: latency("accepted"), LatencyFrom: "from the client's frame",
			Backlog: statuspage.Series{Metric: "runnel_gateway_commands_pending"}, BacklogOf: "in flight",
		},
		{
			Name: "Committed", Meaning: "stored, with its place in the log",
			Rate:    statuspage.Series{Metric: "runnel_gateway_commands_total", Label: "outcome", Is: metrics.OutcomeCommitted},
			Latency: latency("committed"), LatencyFrom: "from the client's frame",
		},
		{
			Name: "Delivered", Meaning: "sent to each recipient", Rate: statuspage.Series{Metric: "runnel_gateway_deliveries_total"},
			Latency: latency("delivered"), LatencyFrom: "until the first recipient confirms",
			Backlog: statuspage.Series{Metric: "runnel_gateway_send_queue_bytes"}, BacklogOf: "queued", BacklogUnit: "B",
		},
	}
}

// Charts are the charts of a gateway's status page.
func Charts() []statuspage.Chart {
	return []statuspage.Chart{
		{Title: "Connections", Metric: "runnel_gateway_connections"},
		{Title: "Requests refused", Metric: "runnel_gateway_refusals_total", Kind: statuspage.Rate, Unit: "/s"},
		{Title: "Accepted, p99 at most", Metric: "runnel_gateway_command_seconds", Label: "rung", Is: "accepted", Kind: statuspage.P99, Unit: "s", Detail: true},
		{Title: "Committed, p99 at most", Metric: "runnel_gateway_command_seconds", Label: "rung", Is: "committed", Kind: statuspage.P99, Unit: "s", Detail: true},
		{Title: "Delivered, p99 at most", Metric: "runnel_gateway_command_seconds", Label: "rung", Is: "delivered", Kind: statuspage.P99, Unit: "s", Detail: true},
		{Title: "Commands answered", Metric: "runnel_gateway_commands_total", Kind: statuspage.Rate, Unit: "/s", Detail: true},
		{Title: "Bytes to clients", Metric: "runnel_gateway_bytes_out_total", Kind: statuspage.Rate, Unit: "B/s", Detail: true},
		{Title: "Waiting in send queues", Metric: "runnel_gateway_send_queue_bytes", Unit: "B", Detail: true},
		{Title: "New connections", Metric: "runnel_gateway_connects_total", Kind: statuspage.Rate, Unit: "/s", Detail: true},
		{Title: "Events sent again", Metric: "runnel_gateway_retries_total", Kind: statuspage.Rate, Unit: "/s", Detail: true},
		{Title: "Gaps found", Metric: "runnel_gateway_gaps_total", Kind: statuspage.Rate, Unit: "/s", Detail: true},
	}
}

// ConnectionTable shows the connections of this gateway.
func (s *Server) ConnectionTable() statuspage.Source {
	return func(ctx context.Context) (statuspage.Table, error) {
		table := statuspage.Table{
			Title:   "Connections",
			Columns: []string{"user", "device", "client", "from", "protocol", "connected for", "queued", "conversations", "connection"},
		}
		connections, users := s.deps.Sessions.Count()
		table.Summary = fmt.Sprintf("%d open, users: %d, limit: %d", connections, users, s.deps.MaxConnections)
		answer, err := s.ListConnections(ctx, &gatewayv1.ListConnectionsRequest{Limit: statuspage.MaxRows})
		if err != nil {
			return table, err
		}
		now := time.Now()
		for _, c := range answer.GetConnections() {
			table.Rows = append(table.Rows, []string{
				c.GetUserId(), c.GetDeviceId(), c.GetClient(), c.GetRemote(), c.GetProtocol(),
				now.Sub(time.UnixMilli(c.GetSinceMs())).Round(time.Second).String(), strconv.FormatUint(c.GetQueuedBytes(), 10) + " B",
				strconv.FormatUint(uint64(c.GetConversations()), 10), c.GetConnectionId(),
			})
		}
		if answer.GetMore() {
			table.Note = fmt.Sprintf("These are the first %d. runnel admin connections list shows all, debug/users/USER those of one user.", statuspage.MaxRows)
		}
		return table, nil
	}
}
