package torture

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/runnelhq/runnel/services/e2e/launch"
)

// snapshotPause is how long after a snapshot the next one is taken.
const snapshotPause = 50 * time.Millisecond

// snapshots takes one conversation after the other as it stands at one moment, in the middle of everything: a log and what follows
// from it must agree at every moment at which somebody could read them, not only in the end.
func (r *run) snapshots(ctx context.Context, random *rand.Rand) {
	for launch.Sleep(ctx, snapshotPause) == nil {
		ids := pick(random, r.devices...).conversations()
		if len(ids) == 0 {
			continue
		}
		content, err := r.database.Snapshot(ctx, pick(random, ids...))
		if err != nil {
			continue // it is down, or was just restarted
		}
		r.record.Violated(CheckSnapshot(content)...)
		r.report.Snapshots++
	}
}

// CheckSnapshot is what holds of every conversation at every moment.
func CheckSnapshot(c Content) (found []Violation) {
	for _, check := range []func(History, Content) []Violation{CheckNoHoles, CheckKeys, CheckReplay, CheckStays, CheckChain, CheckPositions} {
		found = append(found, check(History{}, c)...)
	}
	return found
}
