package client_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/runnelhq/runnel/pkg/client"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

const (
	otherTraceID = "0af7651916cd43dd8448eb211c80319c"
	otherSpanID  = "b7ad6b7169203331"
	otherTrace   = "00-" + otherTraceID + "-" + otherSpanID + "-01"
)

func recorded(sampler sdktrace.Sampler) (*tracetest.SpanRecorder, *sdktrace.TracerProvider) {
	spans := tracetest.NewSpanRecorder()
	return spans, sdktrace.NewTracerProvider(sdktrace.WithSampler(sampler), sdktrace.WithSpanProcessor(spans))
}

func attributes(span sdktrace.ReadOnlySpan) map[attribute.Key]any {
	all := map[attribute.Key]any{}
	for _, a := range span.Attributes() {
		all[a.Key] = a.Value.AsInterface()
	}
	return all
}

func notes(span sdktrace.ReadOnlySpan) (names []string) {
	for _, event := range span.Events() {
		names = append(names, event.Name)
	}
	return names
}

func traced(f *clientv1.ServerFrame, parent string) *clientv1.ServerFrame {
	f.Traceparent = parent
	return f
}

func TestACommandHasOneSpanOverAllItsTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spans, provider := recorded(sdktrace.AlwaysSample())
		g := newGateway()
		c, _ := start(t, g, func(cfg *client.Config) { cfg.TracerProvider = provider })
		l, _ := g.accept(t, connected())

		ctx, click := provider.Tracer("test").Start(t.Context(), "click")
		var outcome *conversationv1.Outcome
		done := make(chan error, 1)
		go func() {
			var err error
			outcome, err = c.Send(ctx, "a", "hello")
			done <- err
		}()
		first := l.recv(t)
		parent := first.GetSubmit().GetTraceparent()
		l.cut()
		l, _ = g.accept(t, connected())
		second := l.recv(t)
		require.Equal(t, parent, second.GetSubmit().GetTraceparent(), "a repeated command belongs to the same trace")
		l.send(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Accepted{Accepted: &clientv1.Accepted{RequestId: second.GetId()}}})
		require.Empty(t, spans.Ended())
		l.send(commit(second, 7))
		require.NoError(t, <-done)
		require.Equal(t, uint64(7), outcome.GetSeq())

		ended := spans.Ended()
		require.Len(t, ended, 1)
		send := ended[0]
		require.Equal(t, "runnel.client.send", send.Name())
		require.Equal(t, click.SpanContext().SpanID(), send.Parent().SpanID())
		require.Equal(t, "00-"+send.SpanContext().TraceID().String()+"-"+send.SpanContext().SpanID().String()+"-01", parent)
		require.Equal(t, []string{"sent", "sent again", "accepted"}, notes(send))
		require.Equal(t, map[attribute.Key]any{
			"runnel.conversation.id": "a", "runnel.command.id": first.GetSubmit().GetCommandId(), "runnel.seq": int64(7),
		}, attributes(send))
		require.Equal(t, codes.Unset, send.Status().Code)
	})
}

func TestARefusedCommandNamesItsTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spans, provider := recorded(sdktrace.AlwaysSample())
		g := newGateway()
		c, _ := start(t, g, func(cfg *client.Config) { cfg.TracerProvider = provider })
		l, _ := g.accept(t, connected())
		ticket := enqueue(t, c, "a", "1")
		require.Empty(t, ticket.TraceID())
		l.send(traced(refuse(l.recv(t).GetId(), conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN), otherTrace))
		_, err := ticket.Wait(t.Context())
		var refusal *client.RefusedError
		require.ErrorAs(t, err, &refusal)
		require.Equal(t, otherTraceID, refusal.TraceID)
		require.Equal(t, otherTraceID, ticket.TraceID(), "the gateway recorded it under another trace, which is the one to look up")
		require.Equal(t, sdktrace.Status{Code: codes.Error, Description: "forbidden"}, spans.Ended()[0].Status())

		// Every outcome ends the span.
		enqueue(t, c, "a", "2")
		ctx, cancel := context.WithCancel(t.Context())
		withdrawn := make(chan error, 1)
		go func() { _, err := c.Send(ctx, "a", "3"); withdrawn <- err }()
		l.recv(t)
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-withdrawn, context.Canceled)
		require.NoError(t, c.Close())
		require.Len(t, spans.Ended(), 3)
		require.Len(t, spans.Started(), 3)
	})
}

func TestTheTraceOfAnOutcome(t *testing.T) {
	for name, c := range map[string]struct {
		sampler          sdktrace.Sampler
		answered         string
		sent, own, other bool
	}{
		"recorded by the client":           {sdktrace.AlwaysSample(), "", true, true, false},
		"recorded by the gateway":          {sdktrace.NeverSample(), otherTrace, true, false, true},
		"recorded by nobody":               {sdktrace.NeverSample(), "", true, false, false},
		"without a tracer":                 {nil, otherTrace, false, false, true},
		"without a tracer, not recorded":   {nil, "", false, false, false},
		"answered with what is no context": {sdktrace.AlwaysSample(), "00-what", true, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGateway()
				cl, _ := start(t, g, func(cfg *client.Config) {
					if c.sampler != nil {
						_, cfg.TracerProvider = recorded(c.sampler)
					}
				})
				l, _ := g.accept(t, connected())
				ticket := enqueue(t, cl, "a", "1")
				f := l.recv(t)
				parent := f.GetSubmit().GetTraceparent()
				require.Equal(t, c.sent, parent != "", "the decision is told also when it is no")
				l.send(traced(commit(f, 1), c.answered))
				<-ticket.Done()
				switch {
				case c.own:
					require.Equal(t, parent[3:35], ticket.TraceID())
				case c.other:
					require.Equal(t, otherTraceID, ticket.TraceID())
				default:
					require.Empty(t, ticket.TraceID())
				}
			})
		})
	}
}

func TestAReceivedEventGoesOnWithItsTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spans, provider := recorded(sdktrace.ParentBased(sdktrace.NeverSample()))
		type seen struct{ id, parent string }
		var took []seen
		g, h := newGateway(), newHistory(4)
		release := make(chan struct{})
		start(t, g, fromFirst, func(cfg *client.Config) {
			cfg.TracerProvider = provider
			cfg.OnEvent = func(ctx context.Context, _ client.Event) {
				<-release
				took = append(took, seen{client.TraceID(ctx), client.Traceparent(ctx)})
			}
		})
		l, _ := g.accept(t, connected(h.info()))
		came := time.Now()
		// The third event arrives before the second, is held, and keeps its trace. The last event has no valid trace.
		l.send(h.push(1), traced(h.push(3), otherTrace), traced(h.push(4), "nonsense"))
		time.Sleep(time.Second)
		l.send(h.page(l.recv(t)))
		synctest.Wait()
		require.Empty(t, spans.Ended())
		close(release)
		ack := l.recvAck(t)
		require.Equal(t, uint64(4), ack[h.id].GetDelivered())

		require.Len(t, spans.Ended(), 1)
		receive := spans.Ended()[0]
		require.Equal(t, "runnel.client.receive", receive.Name())
		require.Equal(t, trace.SpanKindConsumer, receive.SpanKind())
		require.Equal(t, otherTraceID, receive.SpanContext().TraceID().String())
		require.Equal(t, otherSpanID, receive.Parent().SpanID().String())
		require.Equal(t, came, receive.StartTime().Round(0), "it begins with the arrival")
		require.Equal(t, map[attribute.Key]any{"runnel.conversation.id": h.id, "runnel.seq": int64(3)}, attributes(receive))
		inside := "00-" + otherTraceID + "-" + receive.SpanContext().SpanID().String() + "-01"
		require.Equal(t, []seen{{}, {}, {otherTraceID, inside}, {}}, took)
	})
}

func TestWithoutATracerTheApplicationHasTheTraceOfAnEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, h := newGateway(), newHistory(1)
		took := make(chan error, 1)
		start(t, g, fromFirst, func(cfg *client.Config) {
			cfg.OnEvent = func(ctx context.Context, _ client.Event) {
				if client.TraceID(ctx) != otherTraceID || client.Traceparent(ctx) != otherTrace {
					took <- errors.New(client.Traceparent(ctx))
					return
				}
				took <- nil
			}
		})
		l, _ := g.accept(t, connected(h.info()))
		l.send(traced(h.push(1), otherTrace))
		require.NoError(t, <-took)
	})
}
