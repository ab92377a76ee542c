package requests

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/time/rate"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/protocol"

	"github.com/runnelhq/runnel/services/gateway/metrics"
)

// Policy says how users become members of conversations that others create or own.
type Policy string

// The policies.
const (
	// AddDirect lets users add others, who become members at once.
	AddDirect Policy = "direct"
	// AddServer refuses users who add others. Internal services add members, through DeliveryService.
	AddServer Policy = "server"
)

// Adding limits what users may do to others by making them members. The zero value limits nothing.
type Adding struct {
	Policy Policy
	// MaxConversations is how many conversations a user may be a member of; 0 for no limit. Concurrent commands may
	// exceed the limit.
	MaxConversations int
}

// MaxConversations returns how many conversations a user may be a member of; 0 for no limit.
func (h *Handler) MaxConversations() int { return h.cfg.Adding.MaxConversations }

// AddLimiter makes the limit of the members that one user adds per second. The burst is at least the cost of the largest group.
func AddLimiter(perSecond float64) *rate.Limiter {
	return rate.NewLimiter(rate.Limit(perSecond), max(int(10*perSecond), protocol.MaxMembers))
}

// admitAdding decides whether a command may make other users members. It takes one token for the command and one for each
// added member.
func (h *Handler) admitAdding(ctx context.Context, caller *Caller, s *clientv1.Submit) *conversationv1.Error {
	added := conversation.Adds(s.GetBody())
	if len(added) == 0 && s.GetBody().GetCreate() == nil {
		return nil
	}
	if len(added) > 0 && h.cfg.Adding.Policy == AddServer {
		return refusal(conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN, "submit.body", "users of this installation may not add others; its services do")
	}
	if wait := reserve(caller.Adds, min(1+len(added), protocol.MaxMembers)); wait > 0 {
		h.cfg.Metrics.Limits[metrics.LimitAddRate].Inc()
		return LimitedFor("this user adds too many members", wait)
	}
	return h.admitMembers(ctx, caller.User, s.GetBody(), added)
}

// admitMembers checks that no user becomes a member of too many conversations. If the history service does not answer,
// the command is admitted, so that an outage does not stop chat; the rate limits still apply.
func (h *Handler) admitMembers(ctx context.Context, sender ids.User, body *conversationv1.Body, added []string) *conversationv1.Error {
	limit := h.cfg.Adding.MaxConversations
	if limit == 0 {
		return nil
	}
	users := added
	if body.GetCreate() != nil {
		users = append([]string{string(sender)}, added...)
	}
	counts, err := h.counts.of(ctx, h, users)
	if err != nil {
		return nil
	}
	for i, user := range users {
		if counts[i] < uint64(limit) {
			continue
		}
		h.cfg.Metrics.Limits[metrics.LimitConversations].Inc()
		message := fmt.Sprintf("%s is a member of too many conversations; the limit is %d", user, limit)
		if user == string(sender) {
			message = fmt.Sprintf("you are a member of too many conversations; the limit is %d", limit)
		}
		return refusal(conversationv1.ErrorCode_ERROR_CODE_LIMIT, "submit.body", message)
	}
	h.counts.add(users)
	return nil
}

// reserve takes n tokens and returns 0, or takes none and returns how long to wait for them. A nil limiter limits nothing.
func reserve(limiter *rate.Limiter, n int) time.Duration {
	if limiter == nil {
		return 0
	}
	now := time.Now()
	reservation := limiter.ReserveN(now, n)
	if !reservation.OK() {
		return time.Minute // n exceeds the burst: no wait is long enough
	}
	wait := reservation.DelayFrom(now)
	if wait > 0 {
		reservation.CancelAt(now)
	}
	return wait
}
