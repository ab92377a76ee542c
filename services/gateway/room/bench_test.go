package room

import (
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/gateway/flight"
	"github.com/runnelhq/runnel/services/gateway/metrics"
	"github.com/runnelhq/runnel/services/gateway/wire"
)

// BenchmarkLiveEvent measures a live event until just before it is encoded.
func BenchmarkLiveEvent(b *testing.B) {
	data, err := (&brokerv1.Live{Events: branch(nil, 2, "a message of the usual length, which is not long")[1:]}).MarshalVT()
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		var live brokerv1.Live
		require.NoError(b, live.UnmarshalVT(data))
		_ = newEntries(live.GetEvents())
	}
}

// mute is a sender that drops everything.
type mute struct{}

func (mute) Queue([]byte) bool                                        { return false }
func (mute) QueueEvents([]byte, []*flight.Delivery) (uint32, bool)    { return 1, false }
func (mute) Flush()                                                   {}
func (mute) Close(errcode.CloseCode, string) bool                     { return false }
func (mute) Behind(*Subscription)                                     {}
func (mute) Detached(*Subscription, ids.Conversation, ids.Seq)        {}
func (mute) Forked(*Subscription, ids.Conversation, ids.Seq, ids.Seq) {}

// BenchmarkFanOut measures how a live event is passed to a thousand subscriptions, without writing it.
func BenchmarkFanOut(b *testing.B) {
	h := NewHub(b.Context(), Config{
		Logger: slog.New(slog.DiscardHandler), Metrics: metrics.New(prometheus.NewRegistry()), Recorder: flight.NewRecorder(1024),
		Tracer: flight.NewTracer(nil, 0), SendQueueBytes: 1 << 20, RecentBytes: 1 << 20, AckTimeout: time.Hour,
	})
	log := branch(nil, 1, "x")
	r := &Room{hub: h, id: groupID, ready: true, head: 1, headHash: log[0].GetHash()}
	for range 1000 {
		s := (&Listener{User: "ann", Events: wire.WebSocket(frame.Proto), Sender: mute{}, Subscriber: mute{}}).Subscribe(
			&historyv1.Summary{ConversationId: groupID, Head: 1, JoinedSeq: 1}, 1, nil)
		r.addLocked(s)
	}
	event := next(log, "cem", &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: "of the usual length"}}})
	var dirty []Sender
	b.ReportAllocs()
	for b.Loop() {
		event.Seq, event.PrevHash = uint64(r.head+1), r.headHash
		r.mu.Lock()
		r.advanceLocked(newEntries([]*conversationv1.Event{event}), &dirty)
		r.mu.Unlock()
	}
}
