package gateway

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"

	"github.com/runnelhq/runnel/pkg/broker"

	"github.com/runnelhq/runnel/services/gateway/room"
)

// bus is NATS as rooms use it.
type bus struct{ nats *nats.Conn }

// Subscribe implements room.Bus.
func (b bus) Subscribe(conversationID string, to chan *nats.Msg) (room.Unsubscriber, error) {
	sub, err := b.nats.ChanSubscribe(broker.LiveSubject(conversationID), to)
	if err != nil {
		return nil, fmt.Errorf("subscribe to conversation %s: %w", conversationID, err)
	}
	return sub, nil
}

// Flush implements room.Bus.
func (b bus) Flush(ctx context.Context) error { return b.nats.FlushWithContext(ctx) }

// subscribe listens to the notices for all gateways. It fails when NATS refuses any subscription.
func (g *Gateway) subscribe() (unsubscribe func(), err error) {
	var subs []*nats.Subscription
	unsubscribe = func() {
		for _, sub := range subs {
			_ = sub.Unsubscribe() // fails only when the connection is closed
		}
	}
	for subject, take := range map[string]nats.MsgHandler{broker.JoinedSubject: g.onJoined, broker.RevokedSubject: g.onRevoked} {
		sub, err := g.nats.Subscribe(subject, take)
		if err != nil {
			return unsubscribe, fmt.Errorf("subscribe to %s: %w", subject, err)
		}
		subs = append(subs, sub)
	}
	return unsubscribe, broker.Allowed(g.nats)
}

// onJoined takes notices of new memberships.
func (g *Gateway) onJoined(msg *nats.Msg) {
	var joined brokerv1.Joined
	if err := proto.Unmarshal(msg.Data, &joined); err != nil {
		g.log.Error("a joined message cannot be decoded", "error", err)
		return
	}
	for _, userID := range joined.GetUserIds() {
		g.sessions.Joined(userID, joined.GetConversationId())
	}
}

// onRevoked takes notices of revoked tokens.
func (g *Gateway) onRevoked(msg *nats.Msg) {
	var notice brokerv1.Revoked
	if err := proto.Unmarshal(msg.Data, &notice); err != nil {
		g.log.Error("a notice of revoked tokens cannot be decoded", "error", err)
		return
	}
	g.log.Info("tokens were revoked", "user", notice.GetUserId(), "issued_until", time.UnixMilli(notice.GetBeforeMs()))
	g.sessions.Revoke(notice.GetUserId(), notice.GetBeforeMs())
}

// watchNATS has everything compared with the store after the connection to NATS was lost: live messages were missed.
func (g *Gateway) watchNATS(ctx context.Context, status <-chan nats.Status) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-status:
			select {
			case g.lost <- struct{}{}:
			default:
			}
			g.sessions.Relist()
		}
	}
}
