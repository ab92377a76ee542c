package admin

import (
	"context"
	"fmt"
	"strconv"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"

	"github.com/runnelhq/runnel/pkg/statuspage"
)

// PartitionTable lists every partition of the installation with its owner.
func (s *Server) PartitionTable() statuspage.Source {
	return func(ctx context.Context) (statuspage.Table, error) {
		table := statuspage.Table{Title: "Partitions", Columns: []string{"partition", "owner", "state", "lag", "watermark", "moving to"}}
		answer, err := s.ListPartitions(ctx, &adminv1.ListPartitionsRequest{})
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
