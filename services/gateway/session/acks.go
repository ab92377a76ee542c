package session

import (
	"context"
	"log/slog"
	"sync"
	"time"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
)

// Acks collects the positions up to which users have received and read, and sends only the newest values to the owners of
// the partitions. If a value is lost, for example because a partition has no owner at the moment, it is sent again with
// the user's next acknowledgement or with the next heartbeat.
type Acks struct {
	partitions int
	publish    func(partition ids.Partition, data []byte) error
	log        *slog.Logger

	mu      sync.Mutex
	pending map[ackKey]*brokerv1.Ack
}

type ackKey struct {
	conversation ids.Conversation
	user         ids.User
}

const (
	ackInterval = 50 * time.Millisecond
	// acksPerMessage limits the acknowledgements of one message to the owner of a partition.
	acksPerMessage = 1000
)

// NewAcks makes an Acks for a number of partitions. publish sends an encoded brokerv1.Acks to the owner of a partition.
func NewAcks(partitions int, publish func(partition ids.Partition, data []byte) error, log *slog.Logger) *Acks {
	return &Acks{partitions: partitions, publish: publish, log: log, pending: map[ackKey]*brokerv1.Ack{}}
}

// Add records a user's position. Values only rise.
func (a *Acks) Add(conversationID ids.Conversation, userID ids.User, delivered, read ids.Seq) {
	key := ackKey{conversationID, userID}
	a.mu.Lock()
	defer a.mu.Unlock()
	ack := a.pending[key]
	if ack == nil {
		ack = &brokerv1.Ack{ConversationId: string(conversationID), UserId: string(userID)}
		a.pending[key] = ack
	}
	ack.DeliveredSeq = uint64(max(ids.Seq(ack.GetDeliveredSeq()), delivered))
	ack.ReadSeq = uint64(max(ids.Seq(ack.GetReadSeq()), read))
}

// Run forwards acknowledgements until ctx ends, and then once more.
func (a *Acks) Run(ctx context.Context) {
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

func (a *Acks) pass() {
	a.mu.Lock()
	pending := a.pending
	if len(pending) == 0 {
		a.mu.Unlock()
		return
	}
	a.pending = make(map[ackKey]*brokerv1.Ack, len(pending))
	a.mu.Unlock()

	byPartition := map[int][]*brokerv1.Ack{}
	for key, ack := range pending {
		p := conversation.Partition(key.conversation, a.partitions)
		byPartition[int(p)] = append(byPartition[int(p)], ack)
		if len(byPartition[int(p)]) == acksPerMessage {
			a.passBatch(p, byPartition[int(p)])
			byPartition[int(p)] = nil
		}
	}
	for p, batch := range byPartition {
		a.passBatch(ids.Partition(p), batch)
	}
}

func (a *Acks) passBatch(partition ids.Partition, batch []*brokerv1.Ack) {
	if len(batch) == 0 {
		return
	}
	data, err := (&brokerv1.Acks{Acks: batch}).MarshalVT()
	if err == nil {
		err = a.publish(partition, data)
	}
	if err != nil {
		a.log.Debug("could not send acknowledgements", "partition", partition, "error", err)
		for _, ack := range batch {
			a.Add(ids.Conversation(ack.GetConversationId()), ids.User(ack.GetUserId()), ids.Seq(ack.GetDeliveredSeq()), ids.Seq(ack.GetReadSeq()))
		}
	}
}
