package room

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/runnelhq/runnel/services/gateway/page"
)

func TestEventsOfALiveMessageAreAChain(t *testing.T) {
	log := branch(nil, 5, "x")
	entries := newEntries(log)
	require.True(t, chained(nil, entries))
	require.True(t, chained(log[1].GetHash(), entries[2:]))
	require.False(t, chained(log[2].GetHash(), entries[2:]))
	require.False(t, chained(nil, []*entry{entries[0], entries[2]}))
	other := newEntries(branch(log[:2], 4, "y"))
	require.False(t, chained(nil, []*entry{entries[2], other[3]}))
}

// A missing event is counted and logged as an error, however the store's answer shows it; an outage is not.
func TestAHoleIsNoOutage(t *testing.T) {
	for name, c := range map[string]struct {
		err   error
		holes float64
	}{
		"a page that lacks an event":          {&page.HoleError{ConversationID: groupID, Seq: 7}, 1},
		"a page that begins behind one":       {status.Error(codes.DataLoss, "missing"), 1},
		"a history service that is not there": {status.Error(codes.Unavailable, "away"), 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			s.hub.ReadFailed(c.err, "it could not be read")
			require.InDelta(t, c.holes, testutil.ToFloat64(s.metrics.Holes), 0)
			require.Equal(t, c.holes > 0, strings.Contains(s.logs.String(), "level=ERROR"))
		})
	}
}
