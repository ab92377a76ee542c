package gateway

import (
	"context"
	"sync"
	"time"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/conversation"
)

// acks collects how far users got and passes it on to the owners of the partitions, the newest values only. What is lost
// on the way, for example because a partition has no owner right now, goes out again with the next ack of the user, or
// with the next heartbeat (conn.standing).
type acks struct {
	gw *Gateway

	mu   sync.Mutex
	news map[ackKey]*brokerv1.Ack
}

type ackKey struct{ conversation, user string }

const (
	ackInterval = 50 * time.Millisecond
	// acksPerMessage bounds one message to the owner of a partition.
	acksPerMessage = 1000
)

func (a *acks) add(conversationID, userID string, delivered, read uint64) {
	key := ackKey{conversationID, userID}
	a.mu.Lock()
	defer a.mu.Unlock()
	ack := a.news[key]
	if ack == nil {
		ack = &brokerv1.Ack{ConversationId: conversationID, UserId: userID}
		a.news[key] = ack
	}
	ack.DeliveredSeq = max(ack.GetDeliveredSeq(), delivered)
	ack.ReadSeq = max(ack.GetReadSeq(), read)
}

// run passes acks on until ctx ends, and then once more.
func (a *acks) run(ctx context.Context) {
	ticker := time.NewTicker(ackInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			a.pass()
		case <-ctx.Done():
			a.pass()
			return
		}
	}
}

func (a *acks) pass() {
	a.mu.Lock()
	news := a.news
	if len(news) == 0 {
		a.mu.Unlock()
		return
	}
	a.news = make(map[ackKey]*brokerv1.Ack, len(news))
	a.mu.Unlock()

	byPartition := map[int][]*brokerv1.Ack{}
	for key, ack := range news {
		p := conversation.Partition(key.conversation, a.gw.partitions)
		byPartition[p] = append(byPartition[p], ack)
		if len(byPartition[p]) == acksPerMessage {
			a.publish(p, byPartition[p])
			byPartition[p] = nil
		}
	}
	for p, batch := range byPartition {
		a.publish(p, batch)
	}
}

func (a *acks) publish(partition int, batch []*brokerv1.Ack) {
	if len(batch) == 0 {
		return
	}
	data, err := (&brokerv1.Acks{Acks: batch}).MarshalVT()
	if err == nil {
		err = a.gw.nats.Publish(broker.AckSubject(partition), data)
	}
	if err != nil {
		a.gw.log.Debug("acks are not passed on now", "partition", partition, "error", err)
		for _, ack := range batch {
			a.add(ack.GetConversationId(), ack.GetUserId(), ack.GetDeliveredSeq(), ack.GetReadSeq())
		}
	}
}
