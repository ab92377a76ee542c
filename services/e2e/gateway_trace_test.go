package e2e_test

import (
	"context"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/ids"
)

// workersSpan is what a worker puts into a live message: the context of its own span.
const workersSpan = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// recorded returns a provider that records sampled spans, and the recorder.
func recorded(t *testing.T, sampler sdktrace.Sampler) (trace.TracerProvider, func(name string) []sdktrace.ReadOnlySpan) {
	t.Helper()
	recorder := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSampler(sampler), sdktrace.WithSpanProcessor(recorder))
	t.Cleanup(func() { require.NoError(t, provider.Shutdown(context.WithoutCancel(t.Context()))) })
	return provider, func(name string) (found []sdktrace.ReadOnlySpan) {
		for _, span := range recorder.Ended() {
			if span.Name() == name {
				found = append(found, span)
			}
		}
		return found
	}
}

// untilEnded waits for this many ended spans with a name.
func untilEnded(t *testing.T, ended func(string) []sdktrace.ReadOnlySpan, name string, count int) []sdktrace.ReadOnlySpan {
	t.Helper()
	require.Eventually(t, func() bool { return len(ended(name)) >= count }, patience, patience/3000, "%s: %d of %d", name, len(ended(name)), count)
	require.Len(t, ended(name), count)
	return ended(name)
}

func value(span sdktrace.ReadOnlySpan, key attribute.Key) attribute.Value {
	for _, a := range span.Attributes() {
		if a.Key == key {
			return a.Value
		}
	}
	return attribute.Value{}
}

// tellTraced publishes an event whose command was sampled.
func (s *stage) tellTraced(event *conversationv1.Event, traceparent string) {
	s.t.Helper()
	data, err := (&brokerv1.Live{Events: []*conversationv1.Event{event}, Traceparents: []string{traceparent}}).MarshalVT()
	require.NoError(s.t, err)
	require.NoError(s.t, s.nc.Publish(broker.LiveSubject(ids.Conversation(s.id)), data))
}

func TestATraceGoesOnToEachReceiver(t *testing.T) {
	provider, ended := recorded(t, sdktrace.ParentBased(sdktrace.NeverSample()))
	s := newTracedStage(t, nil, provider)
	s.commit(group("bob"))
	ann, bob := s.login("ann"), s.login("bob")
	ann.seqs(1)
	bob.seqs(1)
	s.tellTraced(s.commit(text("2")), workersSpan)
	pushed := bob.until(func(f *clientv1.ServerFrame) bool { return f.GetEvent().GetSeq() == 2 })
	ann.seqs(2)

	fanOut := untilEnded(t, ended, "runnel.gateway.fan_out", 1)[0]
	require.Equal(t, "0af7651916cd43dd8448eb211c80319c", fanOut.SpanContext().TraceID().String())
	require.Equal(t, "b7ad6b7169203331", fanOut.Parent().SpanID().String())
	require.Equal(t, int64(2), value(fanOut, "runnel.connections").AsInt64())
	require.Equal(t, s.id, value(fanOut, "runnel.conversation.id").AsString())
	require.Equal(t, "00-0af7651916cd43dd8448eb211c80319c-"+fanOut.SpanContext().SpanID().String()+"-01", pushed.GetTraceparent())

	writes := untilEnded(t, ended, "runnel.gateway.write", 2)
	connections := map[string]trace.SpanID{}
	for _, write := range writes {
		require.Equal(t, fanOut.SpanContext().SpanID(), write.Parent().SpanID())
		require.Equal(t, int64(2), value(write, "runnel.seq").AsInt64())
		connections[value(write, "runnel.connection.id").AsString()] = write.SpanContext().SpanID()
	}
	require.Len(t, connections, 2)
	require.Empty(t, ended("runnel.gateway.acknowledge"), "nobody has said so yet")
	bob.ackTo(s.id, 2)
	acknowledged := untilEnded(t, ended, "runnel.gateway.acknowledge", 1)[0]
	require.Equal(t, connections[s.connectionID("bob")], acknowledged.Parent().SpanID())
	require.Equal(t, codes.Unset, acknowledged.Status().Code)

	require.NoError(t, ann.ws.Close())
	lost := untilEnded(t, ended, "runnel.gateway.acknowledge", 2)[1]
	require.Equal(t, codes.Error, lost.Status().Code)
	require.Equal(t, "the connection ended", lost.Status().Description)

	s.say("3, not sampled")
	require.Empty(t, bob.until(func(f *clientv1.ServerFrame) bool { return f.GetEvent().GetSeq() == 3 }).GetTraceparent())
	require.Len(t, ended("runnel.gateway.fan_out"), 1)
}

// connectionID is the id of a user's only connection.
func (s *stage) connectionID(user string) string {
	s.t.Helper()
	list, err := s.gw.Server().ListConnections(s.t.Context(), &gatewayv1.ListConnectionsRequest{UserId: user})
	require.NoError(s.t, err)
	require.Len(s.t, list.GetConnections(), 1)
	return list.GetConnections()[0].GetConnectionId()
}

// answerCommands answers every command as the owner of the partition would, and returns their trace contexts.
func (s *stage) answerCommands() (traceparents <-chan string) {
	s.t.Helper()
	js, err := jetstream.New(s.nc)
	require.NoError(s.t, err)
	cfg := defaults(s.t).NATS
	cfg.Partitions = 1
	require.NoError(s.t, broker.EnsureStreams(s.t.Context(), js, cfg))
	seen := make(chan string, 16)
	sub, err := s.nc.Subscribe(broker.CommandSubject(0), func(msg *nats.Msg) {
		var command brokerv1.Command
		if command.UnmarshalVT(msg.Data) != nil {
			return
		}
		seen <- msg.Header.Get("traceparent")
		data, err := (&brokerv1.Results{Results: []*brokerv1.Result{{Sender: command.GetSender(), Salt: command.GetSalt(), Outcome: &conversationv1.Outcome{
			ConversationId: command.GetConversationId(), CommandId: command.GetCommandId(), Seq: 7,
		}}}}).MarshalVT()
		if err == nil {
			_ = s.nc.Publish(broker.ResultSubject(command.GetInbox()), data)
		}
	})
	require.NoError(s.t, err)
	s.t.Cleanup(func() { _ = sub.Unsubscribe() })
	return seen
}

// sendTraced submits a command with a client span, and returns the trace context of the answer.
func (s *stage) sendTraced(r *raw, traceparent string) string {
	s.t.Helper()
	f := submit(s.id, text("hello"))
	f.GetSubmit().Traceparent = traceparent
	answer := r.ask(f)
	require.Equal(s.t, uint64(7), answer.GetOutcome().GetSeq(), "%v", answer)
	return answer.GetTraceparent()
}

const (
	clientsTrace  = "4bf92f3577b34da6a3ce929d0e0e4736"
	clientsSpan   = "00f067aa0ba902b7"
	sampledSpan   = "00-" + clientsTrace + "-" + clientsSpan + "-01"
	unsampledSpan = "00-" + clientsTrace + "-" + clientsSpan + "-00"
)

func TestACommandGoesOnWithTheClientsTrace(t *testing.T) {
	provider, ended := recorded(t, sdktrace.ParentBased(sdktrace.NeverSample()))
	s := newTracedStage(t, nil, provider)
	s.commit(group("bob"))
	traceparents := s.answerCommands()
	ann := s.login("ann")
	answer := s.sendTraced(ann, sampledSpan)
	receive := untilEnded(t, ended, "runnel.gateway.receive", 1)[0]
	publish := untilEnded(t, ended, "runnel.gateway.publish", 1)[0]
	require.Equal(t, "00-"+clientsTrace+"-"+receive.SpanContext().SpanID().String()+"-01", answer)
	require.Equal(t, clientsSpan, receive.Parent().SpanID().String())
	require.Equal(t, receive.SpanContext().SpanID(), publish.Parent().SpanID())
	require.Equal(t, "00-"+clientsTrace+"-"+publish.SpanContext().SpanID().String()+"-01", <-traceparents, "what the worker does hangs below")
	require.Equal(t, s.id, value(receive, "runnel.conversation.id").AsString())
	require.Equal(t, int64(7), value(receive, "runnel.seq").AsInt64())

	require.Empty(t, s.sendTraced(ann, unsampledSpan), "not recorded by the gateway's own ratio")
	require.Empty(t, s.sendTraced(ann, ""))
	require.Len(t, ended("runnel.gateway.receive"), 1)
}
