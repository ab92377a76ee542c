package operator

import (
	"context"
	"fmt"
	"strconv"
	"time"

	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"

	"github.com/runnelhq/runnel/pkg/statuspage"
)

// Charts are the charts of a gateway's status page.
func Charts() []statuspage.Chart {
	return []statuspage.Chart{
		{Title: "Connections", Metric: "runnel_gateway_connections"},
		{Title: "Commands answered", Metric: "runnel_gateway_commands_total", Kind: statuspage.Rate, Unit: "/s"},
		{Title: "Deliveries", Metric: "runnel_gateway_deliveries_total", Kind: statuspage.Rate, Unit: "/s"},
		{Title: "Accepted, p99 at most", Metric: "runnel_gateway_command_seconds", Label: "rung", Is: "accepted", Kind: statuspage.P99, Unit: "s"},
		{Title: "Committed, p99 at most", Metric: "runnel_gateway_command_seconds", Label: "rung", Is: "committed", Kind: statuspage.P99, Unit: "s"},
		{Title: "Delivered, p99 at most", Metric: "runnel_gateway_command_seconds", Label: "rung", Is: "delivered", Kind: statuspage.P99, Unit: "s"},
		{Title: "Bytes to clients", Metric: "runnel_gateway_bytes_out_total", Kind: statuspage.Rate, Unit: "B/s"},
		{Title: "Waiting in send queues", Metric: "runnel_gateway_send_queue_bytes", Unit: "B"},
		{Title: "Connects", Metric: "runnel_gateway_connects_total", Kind: statuspage.Rate, Unit: "/s"},
		{Title: "Sent again", Metric: "runnel_gateway_retries_total", Kind: statuspage.Rate, Unit: "/s"},
		{Title: "Gaps found", Metric: "runnel_gateway_gaps_total", Kind: statuspage.Rate, Unit: "/s"},
		{Title: "Requests refused", Metric: "runnel_gateway_refusals_total", Kind: statuspage.Rate, Unit: "/s"},
	}
}

// ConnectionTable shows the connections of this gateway.
func (s *Server) ConnectionTable() statuspage.Source {
	return func(ctx context.Context) (statuspage.Table, error) {
		table := statuspage.Table{Title: "Connections", Columns: []string{"connection", "user", "device", "from", "client", "protocol", "since", "queued", "conversations"}}
		answer, err := s.ListConnections(ctx, &gatewayv1.ListConnectionsRequest{Limit: statuspage.MaxRows})
		if err != nil {
			return table, err
		}
		now := time.Now()
		for _, c := range answer.GetConnections() {
			table.Rows = append(table.Rows, []string{
				c.GetConnectionId(), c.GetUserId(), c.GetDeviceId(), c.GetRemote(), c.GetClient(), c.GetProtocol(),
				now.Sub(time.UnixMilli(c.GetSinceMs())).Round(time.Second).String(), strconv.FormatUint(c.GetQueuedBytes(), 10) + " B",
				strconv.FormatUint(uint64(c.GetConversations()), 10),
			})
		}
		if answer.GetMore() {
			table.Note = fmt.Sprintf("the first %d; all with runnel admin connections list, one user's at debug/users/USER", statuspage.MaxRows)
		}
		return table, nil
	}
}
