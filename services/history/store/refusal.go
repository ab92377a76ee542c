package store

import (
	"context"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// Refusals stores the commands that were refused.
type Refusals interface {
	// Refusals returns a page of the stored refusals of a partition. Some may be older than RefusalLifetimeMs: each batch
	// removes only a few old refusals.
	Refusals(ctx context.Context, request *historyv1.ListRefusalsRequest) (*historyv1.ListRefusalsResponse, error)
}

// RefusalLifetimeMs is how long a refusal is kept, by stream time.
const RefusalLifetimeMs = 10 * 60 * 1000

// DropRefusals returns which refusals a batch removes: at most limit refusals of its partition with a time before
// beforeMs. A batch removes at least as many as it adds, so the table stays bounded.
func DropRefusals(batch *historyv1.AppendRequest) (beforeMs int64, limit int) {
	return batch.GetNext().GetTimeNs()/1_000_000 - RefusalLifetimeMs, 100 + len(batch.GetRefusals())
}
