package requests

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/rpc"

	"github.com/runnelhq/runnel/services/gateway/metrics"
)

const (
	// countsKept is how long a count is used without asking the history service again. maxCounts is the number of counts
	// that are kept.
	countsKept = 10 * time.Second
	maxCounts  = 20_000
	// countTimeout is the time limit for asking the history service. The caller's next frames wait until then.
	countTimeout = 2 * time.Second
)

// counts remembers for a short time how many conversations users are members of.
type counts struct {
	mu     sync.Mutex
	byUser map[string]counted
}

type counted struct {
	conversations uint64
	at            time.Time
}

// of returns the number of conversations of each user.
func (c *counts) of(ctx context.Context, h *Handler, users []string) ([]uint64, error) {
	all, unknown := make([]uint64, len(users)), []string(nil)
	now := time.Now()
	c.mu.Lock()
	for i, user := range users {
		known, has := c.byUser[user]
		if all[i] = known.conversations; !has || now.Sub(known.at) > countsKept {
			unknown = append(unknown, user)
		}
	}
	c.mu.Unlock()
	if len(unknown) == 0 {
		return all, nil
	}
	ctx, cancel := context.WithTimeout(ctx, countTimeout)
	defer cancel()
	fresh := make(map[string]uint64, len(unknown))
	for part := range slices.Chunk(unknown, rpc.MaxItems) {
		h.cfg.Metrics.Reads[metrics.ReadCounts].Inc()
		answer, err := h.cfg.History.CountMemberships(ctx, &historyv1.CountMembershipsRequest{UserIds: part})
		if err != nil {
			return nil, fmt.Errorf("count memberships: %w", err)
		}
		for _, one := range answer.GetCounts() {
			fresh[one.GetUserId()] = one.GetConversations()
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byUser == nil || len(c.byUser)+len(unknown) > maxCounts {
		c.byUser = map[string]counted{}
	}
	for _, user := range unknown {
		c.byUser[user] = counted{fresh[user], now}
	}
	for i, user := range users {
		if known, has := c.byUser[user]; has {
			all[i] = known.conversations
		}
	}
	return all, nil
}

// add adds one conversation to the count of each user. The history service does not know this conversation yet.
func (c *counts) add(users []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, user := range users {
		if known, has := c.byUser[user]; has {
			known.conversations++
			c.byUser[user] = known
		}
	}
}
