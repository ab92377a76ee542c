package torture

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/runnelhq/runnel/services/e2e/launch"
)

// snapshotPause is the pause between two snapshots.
const snapshotPause = 50 * time.Millisecond

// snapshots checks one conversation after another, each as stored at one moment, during the load. A log and the rows
// computed from it must agree at every moment at which they can be read, not only in the end.
func (r *run) snapshots(ctx context.Context, random *rand.Rand) {
	for launch.Sleep(ctx, snapshotPause) == nil {
		ids := pick(random, r.devices...).conversations()
		if len(ids) == 0 {
			continue
		}
		content, err := r.database.Snapshot(ctx, pick(random, ids...))
		if err != nil {
			continue // the database is down, or was just restarted
		}
		r.record.Violated(CheckSnapshot(content)...)
		r.report.Snapshots++
	}
}

// CheckSnapshot checks the conditions that hold for every conversation at every moment.
func CheckSnapshot(c Content) (found []Violation) {
	for _, check := range []func(History, Content) []Violation{CheckNoHoles, CheckKeys, CheckReplay, CheckStays, CheckChain, CheckPositions} {
		found = append(found, check(History{}, c)...)
	}
	return found
}
