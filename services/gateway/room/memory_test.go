package room

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/gateway/flight"
	"github.com/runnelhq/runnel/services/gateway/metrics"
	"github.com/runnelhq/runnel/services/gateway/wire"
)

// quietLog answers that every conversation has one event.
type quietLog struct{ hash []byte }

func (q quietLog) Heads(_ context.Context, request *historyv1.HeadsRequest, _ ...grpc.CallOption) (*historyv1.HeadsResponse, error) {
	answer := &historyv1.HeadsResponse{}
	for _, id := range request.GetConversationIds() {
		answer.Heads = append(answer.Heads, &historyv1.Head{ConversationId: id, Head: 1, HeadHash: append([]byte(nil), q.hash...)})
	}
	return answer, nil
}

func (quietLog) Read(context.Context, *historyv1.ReadRequest, ...grpc.CallOption) (*historyv1.ReadResponse, error) {
	return nil, context.Canceled
}

// noBus is a bus without memory of its own.
type noBus struct{}

func (noBus) Subscribe(ids.Conversation, chan *nats.Msg) (Unsubscriber, error) { return noBus{}, nil }
func (noBus) Unsubscribe() error                                               { return nil }
func (noBus) Flush(context.Context) error                                      { return nil }

// heap is the memory in use after a collection.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

// BenchmarkMemoryOfRooms reports the bytes of a room with four subscriptions: idle, right after a message that all clients have
// acknowledged, and once it is quiet again. The places that sessions keep for their subscriptions come on top.
func BenchmarkMemoryOfRooms(b *testing.B) {
	const rooms, members, users = 20_000, 4, 2_000
	log := branch(nil, 2, "a message of the usual length, which is not long, and a little more of it, because people write whole sentences")
	for b.Loop() {
		h := NewHub(b.Context(), Config{
			Log: quietLog{log[0].GetHash()}, Bus: noBus{}, Logger: slog.New(slog.DiscardHandler), Metrics: metrics.New(prometheus.NewRegistry()),
			Recorder: flight.NewRecorder(1024), Tracer: flight.NewTracer(nil, 0), SendQueueBytes: 1 << 20, RecentBytes: 64 << 20, AckTimeout: time.Hour,
		})
		listeners := make([]*Listener, users)
		for i := range listeners {
			listeners[i] = &Listener{User: ids.User(fmt.Sprint("user", i)), Events: wire.WebSocket(frame.JSON), Sender: mute{}, Subscriber: mute{}}
		}
		before := heap()
		all := make([]*Subscription, 0, rooms*members)
		for i, l := range listeners { // as sessions do when they connect
			const each = rooms * members / users
			made, entered, summaries := make([]Subscription, each), map[ids.Conversation]*Subscription{}, make([]*historyv1.Summary, each)
			for k := range summaries {
				summaries[k] = &historyv1.Summary{ConversationId: fmt.Sprintf("g-%036d", (i/members*each + k)), Head: 1, JoinedSeq: 1}
			}
			for k, id := range h.Named(summaries) {
				l.Init(&made[k], summaries[k], 1, nil)
				entered[id] = &made[k]
				all = append(all, &made[k])
			}
			h.Enter(entered, summaries)
		}
		require.Equal(b, rooms, h.Count())
		idle := heap() - before
		for _, r := range h.all() {
			event := proto.CloneOf(log[1])
			event.ConversationId = string(r.id)
			var dirty []Sender
			r.takeMessage(&brokerv1.Live{}, newEntries([]*conversationv1.Event{event}), &dirty)
		}
		now := time.Now()
		for _, s := range all {
			require.True(b, s.Acknowledge(2, 0, now))
		}
		after := heap() - before
		h.Sweep(now)
		swept := heap() - before
		h.Sweep(now.Add(eventsRest))
		quiet := heap() - before
		b.ReportMetric(float64(idle)/rooms, "idle-B/room")
		b.ReportMetric(float64(after)/rooms, "spoken-B/room")
		b.ReportMetric(float64(swept)/rooms, "acked-B/room")
		b.ReportMetric(float64(quiet)/rooms, "quiet-B/room")
		runtime.KeepAlive(listeners)
		runtime.KeepAlive(all)
	}
}
