package delivery

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/telemetry"
	"github.com/runnelhq/runnel/services/delivery/deliverytest"
	"github.com/runnelhq/runnel/services/delivery/flight"
	"github.com/runnelhq/runnel/services/delivery/wake"
)

// traced is a store that records the traces of appends.
type traced struct {
	*deliverytest.History

	mu      sync.Mutex
	appends []trace.SpanContext
}

func (s *traced) Append(ctx context.Context, in *historyv1.AppendRequest, opts ...grpc.CallOption) (*historyv1.AppendResponse, error) {
	answer, err := s.History.Append(ctx, in, opts...)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.appends = append(s.appends, trace.SpanContextFromContext(ctx))
	return answer, err
}

// tracing is a worker whose spans are recorded.
type tracing struct {
	*bed

	worker *worker
	store  *traced
	spans  *tracetest.SpanRecorder
}

func newTracing(t *testing.T) *tracing {
	t.Helper()
	b := newBed(t, 1)
	x := &tracing{bed: b, store: &traced{History: b.store}, spans: tracetest.NewSpanRecorder()}
	x.worker = b.startWorker(func(_ *Config, d *Deps) {
		d.History = x.store
		d.TracerProvider = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(x.spans))
	})
	b.eventually("running", func() bool { return x.worker.state(0) == "running" })
	return x
}

// traceparent returns the trace context of the n-th sender.
func traceparent(n int) string { return fmt.Sprintf("00-%032x-%016x-01", n+0xabc, n+0xdef) }

// putTraced publishes a command with a trace context to the stream of partition 0.
func (b *bed) putTraced(c *brokerv1.Command, traceparent string) {
	b.t.Helper()
	payload, err := c.MarshalVT()
	require.NoError(b.t, err)
	_, err = b.js.PublishMsg(b.t.Context(), &nats.Msg{
		Subject: broker.CommandSubject(0), Data: payload, Header: nats.Header{"traceparent": {traceparent}},
	})
	require.NoError(b.t, err)
}

// ended stops the worker and returns its spans by name.
func (x *tracing) ended() map[string][]sdktrace.ReadOnlySpan {
	x.worker.stop()
	spans := map[string][]sdktrace.ReadOnlySpan{}
	for _, span := range x.spans.Ended() {
		spans[span.Name()] = append(spans[span.Name()], span)
	}
	return spans
}

// nextEvents returns the next live message with events. The receipt of a sender, who has read what they wrote, may come before it.
func nextEvents(t *testing.T, lives <-chan *nats.Msg) *brokerv1.Live {
	t.Helper()
	for {
		var live brokerv1.Live
		require.NoError(t, live.UnmarshalVT((<-lives).Data))
		if len(live.GetEvents()) > 0 {
			return &live
		}
	}
}

func linked(span sdktrace.ReadOnlySpan, to trace.SpanContext) bool {
	for _, link := range span.Links() {
		if link.SpanContext.Equal(to) {
			return true
		}
	}
	return false
}

// One trace covers the sender, all steps of the worker, and the receivers of the event.
func TestOneTraceThroughTheWorker(t *testing.T) {
	x := newTracing(t)
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g"))
	lives, results := make(chan *nats.Msg, 8), make(chan *nats.Msg, 8)
	_, err := x.nc.ChanSubscribe(broker.LiveSubject(ids.Conversation(create.GetConversationId())), lives)
	require.NoError(t, err)
	_, err = x.nc.ChanSubscribe(broker.ResultSubject(create.GetInbox()), results)
	require.NoError(t, err)
	x.putTraced(create, traceparent(1))
	live := nextEvents(t, lives)
	result := <-results
	spans := x.ended()

	apply, appended, publish, batch := spans[flight.SpanApply][0], spans[flight.SpanAppend][0], spans[flight.SpanPublish][0], spans[flight.SpanBatch][0]
	for name, list := range spans {
		require.Len(t, list, 1, name)
		require.Equal(t, traceparent(1)[3:35], list[0].SpanContext().TraceID().String(), name)
	}
	require.Equal(t, traceparent(1)[36:52], apply.Parent().SpanID().String())
	require.Equal(t, apply.SpanContext().SpanID(), appended.Parent().SpanID())
	require.Equal(t, apply.SpanContext().SpanID(), publish.Parent().SpanID())
	require.True(t, linked(apply, batch.SpanContext()))
	require.True(t, linked(batch, apply.SpanContext()))
	require.Equal(t, appended.SpanContext().SpanID(), x.store.appends[0].SpanID(), "the store continues the append")
	want := telemetry.Traceparent(trace.ContextWithSpanContext(t.Context(), publish.SpanContext()))
	require.Equal(t, []string{want}, live.GetTraceparents(), "the gateways continue the publish")
	require.Equal(t, want, result.Header.Get("traceparent"))
	attributes := map[string]string{}
	for _, attribute := range apply.Attributes() {
		attributes[string(attribute.Key)] = attribute.Value.String()
	}
	require.Equal(t, create.GetConversationId(), attributes["runnel.conversation.id"])
	require.Equal(t, create.GetCommandId(), attributes["runnel.command.id"])
	require.Equal(t, "1", attributes["runnel.seq"])
	require.Equal(t, "0", attributes["runnel.partition"])
}

// Commands that share an append have their own spans of it, up to a limit. The trace contexts of other commands are
// passed on unchanged.
func TestManyTracesInOneBatch(t *testing.T) {
	x := newTracing(t)
	entered, gate := wake.NewSignal(), make(chan struct{})
	open := sync.OnceFunc(func() { close(gate) })
	t.Cleanup(open) // before the worker is stopped
	x.bed.store.Fail(func(*historyv1.AppendRequest) error { entered.Raise(); <-gate; return nil }, nil)
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g"))
	x.putCommand(create)
	<-entered // until the gate opens, all commands gather in one batch
	const many = flight.MaxTraced + 8
	lives := make(chan *nats.Msg, 64)
	_, err := x.nc.ChanSubscribe(broker.LiveSubject(ids.Conversation(create.GetConversationId())), lives)
	require.NoError(t, err)
	for i := range many {
		x.putTraced(deliverytest.Command(create.GetConversationId(), "ann", 10+i, deliverytest.Text("x")), traceparent(i))
	}
	x.eventually("all are read", func() bool { return x.worker.count("intake_commands") == many })
	open()
	x.awaitEvent(create.GetConversationId(), many+1)
	spans := x.ended()

	require.Len(t, spans[flight.SpanApply], flight.MaxTraced)
	require.Len(t, spans[flight.SpanAppend], flight.MaxTraced)
	require.Len(t, spans[flight.SpanPublish], flight.MaxTraced)
	require.Len(t, spans[flight.SpanBatch], 1)
	batch := spans[flight.SpanBatch][0]
	for _, apply := range spans[flight.SpanApply] {
		require.True(t, linked(apply, batch.SpanContext()))
		require.True(t, linked(batch, apply.SpanContext()))
	}
	last := x.store.appends[len(x.store.appends)-1]
	require.Equal(t, batch.SpanContext().SpanID(), last.SpanID(), "the store continues the batch")
	var traceparents []string
	for len(traceparents) < many {
		var live brokerv1.Live
		require.NoError(t, live.UnmarshalVT((<-lives).Data))
		traceparents = append(traceparents, live.GetTraceparents()...)
	}
	for i, got := range traceparents {
		require.Equal(t, traceparent(i)[3:35], got[3:35], "event %d carries its own trace", i)
	}
}

// A worker that creates no spans passes the trace contexts of senders on unchanged. It drops invalid trace contexts.
func TestTracesGoThroughAWorkerThatMakesNone(t *testing.T) {
	b := newBed(t, 1)
	w := b.startWorker(nil)
	b.eventually("running", func() bool { return w.state(0) == "running" })
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g"))
	lives := make(chan *nats.Msg, 8)
	_, err := b.nc.ChanSubscribe(broker.LiveSubject(ids.Conversation(create.GetConversationId())), lives)
	require.NoError(t, err)
	for n, given := range []string{traceparent(1), "much too long to be one, which would be told to every gateway there is"} {
		c := create
		if n > 0 {
			c = deliverytest.Command(create.GetConversationId(), "ann", 10+n, deliverytest.Text("x"))
		}
		b.putTraced(c, given)
		live := nextEvents(t, lives)
		if n == 0 {
			require.Equal(t, []string{given}, live.GetTraceparents())
		} else {
			require.Empty(t, live.GetTraceparents())
		}
	}
}
