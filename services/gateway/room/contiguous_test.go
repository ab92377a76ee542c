package room

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/gateway/page"
)

// Every reader checks once more that what it pushes is contiguous. A hole that the checks before it did not find is counted and
// logged as an error, nothing behind it is pushed, and the events are read again.
func TestNothingIsPushedBehindAHole(t *testing.T) {
	log := branch(nil, 8, "x")
	for name, hole := range map[string]func(s *stage, r *Room, c *client){
		"live": func(s *stage, r *Room, _ *client) {
			s.store.Put(log)
			var dirty []Sender
			r.mu.Lock()
			r.advanceLocked(newEntries(append(log[3:4:4], log[5:]...)), &dirty)
			r.mu.Unlock()
			flushAll(dirty)
		},
		"recent events": func(s *stage, r *Room, c *client) {
			s.store.Put(log)
			subscription := c.subscription()
			c.hold(subscription)
			s.live(r, log[3:]...)
			r.mu.Lock()
			r.recent[len(r.recent)-4] = newEntry(log[5]) // instead of the fifth
			r.mu.Unlock()
			c.let(subscription)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			s.store.Put(log[:3])
			r := s.room()
			c := s.client("ann", frame.Proto)
			c.resume()
			hole(s, r, c)
			require.Equal(t, []uint64{4, 5, 6, 7, 8}, c.seqs(5))
			require.GreaterOrEqual(t, testutil.ToFloat64(s.metrics.Holes), 1.0)
			require.Contains(t, s.logs.String(), "level=ERROR")
			require.Contains(t, s.logs.String(), groupID)
			c.quiet()
		})
	}
}

// A page of a former membership from which an event is missing is sent up to the hole.
func TestNothingOfAPageIsQueuedBehindAHole(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 8, "x")
	c := s.client("ann", frame.Proto)
	past := s.hub.Past(&c.Listener, groupID, time.Now().UnixMilli())
	past.page = &historyv1.ReadResponse{Events: append(log[2:4:4], log[5:]...)}
	queued, err := past.Queue(2, 8)
	require.Equal(t, ids.Seq(4), queued)
	var missing *page.HoleError
	require.ErrorAs(t, err, &missing)
	require.Equal(t, ids.Seq(5), missing.Seq)
	past.page = &historyv1.ReadResponse{Events: log[4:7]}
	queued, err = past.Queue(4, 8)
	require.Equal(t, ids.Seq(7), queued)
	require.ErrorAs(t, err, &missing)
	require.Equal(t, ids.Seq(8), missing.Seq, "the page ends too early")
	c.link.Flush()
	require.Equal(t, []uint64{3, 4, 5, 6, 7}, c.seqs(5))
	c.quiet()
}
