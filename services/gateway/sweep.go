package gateway

import (
	"context"
	"math/rand/v2"
	"time"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"

	"github.com/runnelhq/runnel/pkg/errcode"
)

// sweepInterval is how exact heartbeats, time-outs and retries are. One coarse sweep over all connections replaces a timer
// for each of them.
const sweepInterval = time.Second

// sweep looks after connections until ctx ends.
func (g *Gateway) sweep(ctx context.Context) {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			for _, c := range g.connections() {
				c.tend(now)
			}
			for _, r := range g.hub.all() {
				r.retry(now)
				if r.empty() {
					g.hub.closeEmpty(r)
				}
			}
			g.purge()
		}
	}
}

// compareHeads compares with the store once in every heartbeat interval, and at once when something may have been lost.
func (g *Gateway) compareHeads(ctx context.Context) {
	ticker := time.NewTicker(g.cfg.Heartbeat)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-g.lost:
		}
		g.hub.compare(ctx)
	}
}

// firstBeat spreads heartbeats evenly over the interval, however connections came in.
func (g *Gateway) firstBeat() time.Duration { return rand.N(g.cfg.Heartbeat) }

// maxSilentBeats is how many heartbeats may stay unanswered.
const maxSilentBeats = 2

// tend does for one connection what time asks for.
func (c *conn) tend(now time.Time) {
	if c.state.Load() != stateOpen {
		if c.state.Load() == stateAccepted && now.Sub(c.since) > c.gw.cfg.ConnectTimeout {
			c.close(errcode.CloseConnectTimeout, "no connect frame in time")
		}
		return
	}
	if expires := c.expires.Load(); expires != 0 {
		left := time.UnixMilli(expires).Sub(now)
		switch {
		case left <= 0:
			c.close(errcode.CloseTokenExpired, "the token has expired")
			return
		case left <= c.gw.cfg.TokenWarning && !c.warned.Swap(true):
			c.reply(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_TokenExpiring{
				TokenExpiring: &clientv1.TokenExpiring{ExpiresMs: expires},
			}})
		}
	}
	if now.UnixNano() < c.nextBeat.Load() {
		return
	}
	if c.beatPending.Load() >= maxSilentBeats && now.UnixNano()-c.lastHeard.Load() > int64(c.gw.cfg.Heartbeat) {
		c.close(errcode.CloseNoPong, "heartbeats stayed unanswered")
		return
	}
	c.nextBeat.Store(now.Add(c.gw.cfg.Heartbeat).UnixNano())
	beats := c.beats.Add(1)
	c.beatPending.Add(1)
	c.reply(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Heartbeat{Heartbeat: &clientv1.Heartbeat{Heads: c.standing()}}})
	if beats%relistBeats == 0 {
		c.relist()
	}
}

// relistBeats is after how many heartbeats the list of conversations is compared with the store: a notice of a new
// conversation that was lost, with nobody else of it on this gateway, is made up for then.
const relistBeats = 4

// maxTurns bounds how many memberships are looked up at once: after an outage of NATS every connection asks.
const maxTurns = 16

func (c *conn) relist() {
	c.gw.workers.Go(func() {
		if !c.gw.takeTurn(c) {
			return
		}
		defer func() { <-c.gw.turns }()
		ctx, cancel := context.WithTimeout(c.gw.ctx, c.gw.cfg.HistoryTimeout)
		defer cancel()
		summaries, revokedBefore, err := c.gw.listAll(ctx, c.user.id)
		if err != nil {
			return // the next time
		}
		c.gw.revoke(c.user.id, revokedBefore, nil)
		for _, s := range summaries {
			c.join(s.GetConversationId())
		}
	})
}
