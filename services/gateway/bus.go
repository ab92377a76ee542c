package gateway

import (
	"context"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/bus"
	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/gateway/room"
	"github.com/runnelhq/runnel/services/gateway/session"
)

// liveBus implements room.Bus.
type liveBus struct{ bus.Bus }

// Subscribe implements room.Bus.
func (b liveBus) Subscribe(conversationID ids.Conversation, to chan *nats.Msg) (room.Unsubscriber, error) {
	return b.ChanSubscribe(broker.LiveSubject(conversationID), to)
}

// Flush implements room.Bus.
func (b liveBus) Flush(ctx context.Context) error { return b.FlushWithContext(ctx) }

// notices receives the messages that are published to all gateways.
type notices struct {
	sessions *session.Sessions
	log      *slog.Logger
}

// subscribe subscribes to the notices.
func (n notices) subscribe(b bus.Bus) (unsubscribe func(), err error) {
	var subs []bus.Subscription
	unsubscribe = func() {
		for _, sub := range subs {
			_ = sub.Unsubscribe() // fails only if the bus is closed
		}
	}
	for subject, take := range map[string]nats.MsgHandler{broker.JoinedSubject: n.onJoined, broker.RevokedSubject: n.onRevoked} {
		sub, err := b.Subscribe(subject, take)
		if err != nil {
			return unsubscribe, err
		}
		subs = append(subs, sub)
	}
	return unsubscribe, nil
}

// onJoined handles notices of new memberships.
func (n notices) onJoined(msg *nats.Msg) {
	var joined brokerv1.Joined
	if err := proto.Unmarshal(msg.Data, &joined); err != nil {
		n.log.Error("a joined message cannot be decoded", "error", err)
		return
	}
	var committed time.Time
	if ms := joined.GetCommittedMs(); ms > 0 {
		committed = time.UnixMilli(ms)
	}
	for _, userID := range joined.GetUserIds() {
		n.sessions.JoinedAt(ids.User(userID), ids.Conversation(joined.GetConversationId()), ids.Seq(joined.GetSeq()), committed)
	}
}

// onRevoked handles notices of revoked tokens.
func (n notices) onRevoked(msg *nats.Msg) {
	var notice brokerv1.Revoked
	if err := proto.Unmarshal(msg.Data, &notice); err != nil {
		n.log.Error("a notice of revoked tokens cannot be decoded", "error", err)
		return
	}
	n.log.Info("tokens were revoked", "user", notice.GetUserId(), "issued_until", time.UnixMilli(notice.GetBeforeMs()))
	n.sessions.Revoke(ids.User(notice.GetUserId()), notice.GetBeforeMs())
}

// onReconnect calls back each time the connection to NATS is restored, until ctx ends. Live messages may be lost while
// the connection is down.
func onReconnect(ctx context.Context, status <-chan nats.Status, back func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-status:
			back()
		}
	}
}
