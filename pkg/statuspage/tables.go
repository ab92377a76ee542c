package statuspage

import (
	"context"
	"fmt"
	"strconv"
	"time"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"
)

// tableRows is how many rows a table has at most.
const tableRows = 100

// Connections shows the connections of this gateway.
func Connections(gateway gatewayv1.GatewayServiceServer) Source {
	return func(ctx context.Context) (Table, error) {
		table := Table{Title: "Connections", Columns: []string{"connection", "user", "device", "from", "client", "protocol", "since", "queued", "conversations"}}
		answer, err := gateway.ListConnections(ctx, &gatewayv1.ListConnectionsRequest{Limit: tableRows})
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
			table.Note = fmt.Sprintf("the first %d; all with runnel admin connections list, one user's at debug/users/USER", tableRows)
		}
		return table, nil
	}
}

// Partitions shows every partition of the installation with its owner.
func Partitions(admin adminv1.AdminServiceServer) Source {
	return func(ctx context.Context) (Table, error) {
		table := Table{Title: "Partitions", Columns: []string{"partition", "owner", "state", "lag", "watermark", "moving to"}}
		answer, err := admin.ListPartitions(ctx, &adminv1.ListPartitionsRequest{})
		if err != nil {
			return table, err
		}
		for _, p := range answer.GetPartitions() {
			table.Rows = append(table.Rows, []string{
				strconv.FormatUint(uint64(p.GetPartition()), 10), p.GetOwner(), p.GetState(), strconv.FormatUint(p.GetLag(), 10),
				strconv.FormatUint(p.GetWatermark(), 10), p.GetWanted(),
			})
		}
		for _, m := range answer.GetMissing() {
			table.Note += fmt.Sprintf("%s %s did not answer: %s. ", m.GetService(), m.GetInstance(), m.GetReason())
		}
		return table, nil
	}
}
