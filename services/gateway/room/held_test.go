package room

import (
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/gateway/flight"
)

// publish sends events to the shard of the conversation, as the bus does.
func (s *stage) publish(events ...*conversationv1.Event) {
	s.t.Helper()
	data, err := (&brokerv1.Live{Events: events}).MarshalVT()
	require.NoError(s.t, err)
	s.hub.shardOf(groupID).live <- &nats.Msg{Subject: broker.LiveSubject(groupID), Data: data}
}

// outcome queues a frame that stands for the outcome of a command, and has it written with the event at seq.
func (c *client) outcome(seq ids.Seq) {
	c.link.Queue(c.Answers.Frame(&clientv1.ServerFrame{Id: 7}))
	c.stage.hub.FlushWith(groupID, seq, c.link)
}

// writes is a sender that counts the messages of each write.
type writes struct {
	mute

	mu     sync.Mutex
	queued int
	counts chan int
}

func (w *writes) Queue([]byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queued++
	return w.queued == 1
}

func (w *writes) QueueEvents(message []byte, _ []*flight.Delivery) (uint32, bool) {
	return 1, w.Queue(message)
}

func (w *writes) Flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.queued > 0 {
		w.counts <- w.queued
		w.queued = 0
	}
}

// An outcome and its event are one write.
func TestAnOutcomeIsWrittenWithItsEvent(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 3, "x")
	s.store.Put(log)
	s.room()
	ann := s.client("ann", frame.Proto)
	sender := &writes{counts: make(chan int, 2)}
	ann.Sender = sender
	ann.resume()
	log = branch(log, 4, "x")
	s.store.Put(log)
	held := &s.hub.shardOf(groupID).held
	held.mu.Lock()
	held.wait = time.Hour
	held.mu.Unlock()
	sender.Queue(nil)
	s.hub.FlushWith(groupID, 4, sender)
	s.publish(log[3])
	require.Equal(t, 2, <-sender.counts)
	s.sweep(time.Now())
	require.Empty(t, sender.counts)
}

// An outcome whose event the room has, or will not get, is written without it.
func TestAnOutcomeDoesNotWaitInVain(t *testing.T) {
	for name, seq := range map[string]ids.Seq{"the room has the event": 3, "there is no event": 0, "the event is lost": 4} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			s.store.Put(branch(nil, 3, "x"))
			s.room()
			ann := s.client("ann", frame.Proto)
			ann.resume()
			ann.outcome(seq)
			require.Equal(t, uint64(7), ann.next().GetId())
		})
	}
	t.Run("there is no room", func(t *testing.T) {
		s := newStage(t)
		ann := s.client("ann", frame.Proto)
		ann.outcome(1)
		require.Equal(t, uint64(7), ann.next().GetId())
	})
}

// The senders that wait are limited.
func TestTooManyOutcomesAreNotHeldBack(t *testing.T) {
	var h held
	h.init()
	for range maxHeld {
		require.True(t, h.add(&flushed{}))
	}
	require.False(t, h.add(&flushed{}))
	require.Len(t, h.release(nil), maxHeld)
	require.Empty(t, h.release(nil))
	require.True(t, h.add(&flushed{}))
	h.due.Stop()
}
