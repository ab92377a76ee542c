package commit

import (
	"context"
	"fmt"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/rpc"
)

// LoadRefusals loads the refusals that previous workers stored. Without them a refused command could be committed later,
// so the partition waits until all are loaded.
func (c *Committer) LoadRefusals(ctx context.Context, nowMs int64) error {
	request := &historyv1.ListRefusalsRequest{Partition: uint32(c.Partition), Limit: rpc.MaxItems}
	var all []*historyv1.Refusal
	for more := true; more; {
		call, cancel := context.WithTimeout(ctx, c.AppendTimeout)
		page, err := c.History.ListRefusals(call, request)
		cancel()
		if err != nil {
			return fmt.Errorf("list the refusals that are remembered: %w", err)
		}
		all = append(all, page.GetRefusals()...)
		if more = page.GetMore() && len(page.GetRefusals()) > 0; more {
			request.After = page.GetRefusals()[len(page.GetRefusals())-1].GetCommand()
		}
	}
	c.Refusals.Load(all, nowMs)
	c.Gauges.Refusals.Set(float64(c.Refusals.Size()))
	return nil
}
