package e2e_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/client"
	"github.com/runnelhq/runnel/pkg/telemetry"
	"github.com/runnelhq/runnel/services/e2e/launch"
	"github.com/runnelhq/runnel/services/e2e/otlptest"
)

// The hops of a send, each with its parent, its service, and its number when the sender and one receiver are on two
// gateways: both devices receive the event.
var hops = []struct {
	name, below, service string
	times                int
}{
	{"runnel.client.send", "", "ann", 1},
	{"runnel.gateway.receive", "runnel.client.send", "runnel-gateway", 1},
	{"runnel.gateway.publish", "runnel.gateway.receive", "runnel-gateway", 1},
	{"runnel.delivery.apply", "runnel.gateway.publish", "runnel-delivery", 1},
	{"runnel.delivery.batch", "runnel.delivery.apply", "runnel-delivery", 1},
	{"runnel.delivery.append", "runnel.delivery.apply", "runnel-delivery", 1},
	{"runnel.delivery.publish", "runnel.delivery.apply", "runnel-delivery", 1},
	{"runnel.gateway.fan_out", "runnel.delivery.publish", "runnel-gateway", 2},
	{"runnel.gateway.write", "runnel.gateway.fan_out", "runnel-gateway", 2},
	{"runnel.gateway.acknowledge", "runnel.gateway.write", "runnel-gateway", 2},
	{"runnel.client.receive", "runnel.gateway.fan_out", "", 2},
}

// appendCall is the call of the store: a span of the worker, and one of the store below it.
const appendCall = "runnel.history.v1.HistoryService/Append"

// tracedClient is a client with telemetry of its own, as a program of a user of the Go client has it.
type tracedClient struct {
	*client.Client

	events chan received
	flush  func()
}

// received is an event with the trace that the application was told.
type received struct {
	seq     uint64
	traceID string
}

func newTraced(t *testing.T, suite *launch.Suite, gateway int, user string, tracing telemetry.Config) *tracedClient {
	t.Helper()
	tracing.LogLevel, tracing.LogFormat = "error", "text"
	tel, err := telemetry.Start(t.Context(), user, tracing, t.Output())
	require.NoError(t, err)
	p := &tracedClient{events: make(chan received, 100)}
	p.Client, err = client.New(client.Config{
		URL: suite.URLs[gateway], DeviceID: user + "-phone", AckDelay: -1, TracerProvider: tel.TracerProvider,
		Token: func(context.Context) (string, error) { return suite.Token(user) },
		OnEvent: func(ctx context.Context, event client.Event) {
			p.events <- received{event.GetSeq(), client.TraceID(ctx)}
		},
	})
	require.NoError(t, err)
	require.NoError(t, p.Start(t.Context()))
	require.NoError(t, p.Ready(t.Context()))
	p.flush = func() {
		require.NoError(t, p.Close())
		require.NoError(t, tel.Shutdown(context.WithoutCancel(t.Context())))
	}
	return p
}

// send sends a message and waits until both have it; it gives the trace that the sender was told.
func (p *tracedClient) send(t *testing.T, id, said string, both ...*tracedClient) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ticket, err := p.Enqueue(id, text(said))
	require.NoError(t, err)
	outcome, err := ticket.Wait(ctx)
	require.NoError(t, err)
	for _, other := range both {
		for seq := uint64(0); seq != outcome.GetSeq(); {
			select {
			case event := <-other.events:
				if seq = event.seq; seq == outcome.GetSeq() {
					require.Equal(t, ticket.TraceID(), event.traceID, "the sender and the receivers are told one trace")
				}
			case <-ctx.Done():
				require.FailNow(t, "an event did not come", "seq %d, the last was %d", outcome.GetSeq(), seq)
			}
		}
	}
	return ticket.TraceID()
}

// greet sends a message and waits until both have it, whatever trace they are told.
func (p *tracedClient) greet(t *testing.T, id string, both ...*tracedClient) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	outcome, err := p.Send(ctx, id, "hello")
	require.NoError(t, err)
	for _, other := range both {
		for seq := uint64(0); seq != outcome.GetSeq(); {
			select {
			case event := <-other.events:
				seq = event.seq
			case <-ctx.Done():
				require.FailNow(t, "the greeting did not come")
			}
		}
	}
}

// TestOneSampledSendIsOneTrace follows a message from the sender's click to both receivers' acknowledgements, through five
// processes that export to one collector. They record nothing by themselves, so what is there is there because of the sender.
func TestOneSampledSendIsOneTrace(t *testing.T) {
	spans := otlptest.Start(t)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
	programs := binaries(t, launch.Gateway, launch.Delivery, launch.History, launch.NATSServer)
	exporting := []string{"--telemetry.otlp-endpoint=" + spans.Endpoint(), "--telemetry.sample-ratio=0"}
	starting, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	suite, err := launch.Start(starting, launch.Options{
		Dir: t.TempDir(), Binaries: programs, Deliveries: 1,
		Flags: map[string][]string{launch.Gateway: exporting, launch.Delivery: exporting, launch.History: exporting},
	})
	require.NoError(t, err)
	t.Cleanup(suite.Kill)

	// Ann's sends are recorded; Bob, on the other gateway, continues the trace that he receives.
	ann := newTraced(t, suite, 0, "ann", telemetry.Config{OTLPEndpoint: spans.Endpoint(), SampleRatio: 1})
	bob := newTraced(t, suite, 1, "bob", telemetry.Config{OTLPEndpoint: spans.Endpoint(), SampleRatio: 0})
	id, err := bob.OpenDirect(t.Context(), "ann")
	require.NoError(t, err)
	// The first message may reach a client through history, while its subscription is still being made.
	bob.greet(t, id, ann, bob)
	traceID := ann.send(t, id, "traced", ann, bob)
	require.Len(t, traceID, 32)

	all := spans.Await(t, "every hop of the send", func(all otlptest.Spans) bool {
		trace := all.Trace(traceID)
		for _, hop := range hops {
			if len(trace.Named(hop.name)) < hop.times {
				return false
			}
		}
		return len(trace.Named(appendCall)) >= 2
	})
	trace := all.Trace(traceID)
	require.Empty(t, trace.Orphans(), trace.Tree())
	require.Len(t, trace.Roots(), 1, trace.Tree())
	for _, hop := range hops {
		named := trace.Named(hop.name)
		require.Len(t, named, hop.times, "%s\n%s", hop.name, trace.Tree())
		for _, span := range named {
			require.Equal(t, hop.below, trace.ParentOf(span).Name, trace.Tree())
			require.Empty(t, span.Failure, trace.Tree())
			if hop.service != "" {
				require.Equal(t, hop.service, span.Service, trace.Tree())
			}
		}
	}
	apply, batch := trace.Named("runnel.delivery.apply"), trace.Named("runnel.delivery.batch")
	require.True(t, apply.Linked(batch[0]))
	require.True(t, batch.Linked(apply[0]))
	called, served := trace.Named(appendCall).Of("runnel-delivery"), trace.Named(appendCall).Of("runnel-history")
	require.Len(t, called, 1, trace.Tree())
	require.Len(t, served, 1, trace.Tree())
	require.Equal(t, "runnel.delivery.append", trace.ParentOf(called[0]).Name)
	require.Equal(t, called[0].ID, served[0].Parent)
	require.Len(t, trace.Named("runnel.client.receive").Of("ann"), 1)
	require.Len(t, trace.Named("runnel.client.receive").Of("bob"), 1)

	// Each receiver's gateway has its own spans for fan-out, write and acknowledgement.
	fanOut := trace.Named("runnel.gateway.fan_out")
	require.NotEqual(t, fanOut[0].ID, fanOut[1].ID)
	connections := map[any]string{}
	for _, acknowledge := range trace.Named("runnel.gateway.acknowledge") {
		write := trace.ParentOf(acknowledge)
		connections[write.Attributes["runnel.connection.id"]] = write.Parent
	}
	require.Len(t, connections, 2, trace.Tree())
	for _, span := range fanOut {
		require.Equal(t, int64(1), span.Attributes["runnel.connections"], "one of the two is on another gateway")
		require.Contains(t, connections, connectionBelow(trace, span))
	}
	for _, name := range []string{"runnel.client.send", "runnel.gateway.receive", "runnel.delivery.apply", "runnel.gateway.fan_out", "runnel.client.receive"} {
		for _, span := range trace.Named(name) {
			require.Equal(t, int64(3), span.Attributes["runnel.seq"], name)
			require.Equal(t, id, span.Attributes["runnel.conversation.id"], name)
		}
	}
	require.Contains(t, trace.Named("runnel.client.send")[0].Events, "sent")

	// Without a sampled span nothing is recorded: neither Bob's message, nor the conversation that he opened.
	require.Empty(t, bob.send(t, id, "not traced", ann, bob))
	ann.flush()
	bob.flush()
	require.NoError(t, suite.Stop())
	for _, span := range spans.Spans() {
		require.Equal(t, traceID, span.TraceID, spans.Spans().Tree())
	}
}

// connectionBelow is the connection that a gateway wrote to below a span.
func connectionBelow(trace otlptest.Spans, fanOut otlptest.Span) any {
	for _, write := range trace.Named("runnel.gateway.write") {
		if write.Parent == fanOut.ID {
			return write.Attributes["runnel.connection.id"]
		}
	}
	return nil
}
