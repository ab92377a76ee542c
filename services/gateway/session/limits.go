package session

import (
	"math"

	"golang.org/x/time/rate"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"

	"github.com/runnelhq/runnel/pkg/protocol"
)

// limits returns the limits in force for this session. Rates are those of the limiters that its requests meet.
func (s *Session) limits() *clientv1.Limits {
	cfg, caller := &s.all.deps.Config, &s.user.caller
	limits := protocol.NewLimits()
	limits.MaxFrameBytes = uint32(cfg.MaxFrameBytes)
	limits.MaxConnectionsPerUser = uint32(cfg.MaxConnectionsPerUser)
	limits.MaxConversationsPerUser = uint32(s.all.deps.Requests.MaxConversations())
	limits.FrameRate, limits.CommandRate = rateOf(s.frames), rateOf(caller.Commands)
	limits.ReadRate, limits.AddRate = rateOf(caller.Reads), rateOf(caller.Adds)
	return limits
}

// rateOf describes a limiter; nil for no limit.
func rateOf(limiter *rate.Limiter) *clientv1.Rate {
	if limiter == nil {
		return nil
	}
	return &clientv1.Rate{
		PerMinute: uint32(min(60*float64(limiter.Limit()), math.MaxUint32)), Burst: uint32(limiter.Burst()),
	}
}
