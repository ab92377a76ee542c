package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/fleet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// gateway is a fake service. Depending on the user in the query it answers with its name, waits, fails or panics.
type gateway struct {
	gatewayv1.UnimplementedGatewayServiceServer

	name    string
	entered chan struct{}
}

func (g *gateway) Explain(ctx context.Context, request *gatewayv1.ExplainRequest) (*gatewayv1.ExplainResponse, error) {
	verb, whom, _ := strings.Cut(request.GetUserId(), ":")
	if whom != "" && whom != g.name {
		verb = ""
	}
	switch verb {
	case "silent":
		if g.entered != nil {
			g.entered <- struct{}{}
		}
		<-ctx.Done()
		return nil, ctx.Err()
	case "fail":
		return nil, status.Error(codes.NotFound, "no such\nconnection")
	case "plain":
		return nil, errors.New("out of its mind")
	case "panic":
		panic("out of its mind")
	case "large":
		return &gatewayv1.ExplainResponse{Gateway: strings.Repeat("x", 2<<20)}, nil
	}
	return &gatewayv1.ExplainResponse{Gateway: g.name, StartedMs: int64(request.GetSeq())}, nil
}

type fixture struct {
	t  *testing.T
	nc func() *nats.Conn
}

func setup(t *testing.T) *fixture {
	t.Helper()
	ns, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true})
	require.NoError(t, err)
	ns.Start()
	require.True(t, ns.ReadyForConnections(30*time.Second))
	t.Cleanup(func() {
		ns.Shutdown()
		ns.WaitForShutdown()
	})
	return &fixture{t: t, nc: func() *nats.Conn {
		nc, err := broker.Connect(broker.Config{}, "test", slog.New(slog.DiscardHandler), prometheus.NewRegistry(), nats.InProcessServer(ns))
		require.NoError(t, err)
		t.Cleanup(nc.Close)
		return nc
	}}
}

// run starts an instance; the returned function stops it.
func (x *fixture) run(service, instance string, impl gatewayv1.GatewayServiceServer) (*fleet.Fleet, func()) {
	x.t.Helper()
	f := fleet.New(fleet.Config{NATS: x.nc(), Service: service, Instance: instance, Log: slog.New(slog.DiscardHandler)})
	if impl != nil {
		gatewayv1.RegisterGatewayServiceServer(f, impl)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(x.t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		require.NoError(x.t, <-ended)
	}
	x.t.Cleanup(stop)
	return f, stop
}

// known waits until the instance knows this many gateways.
func (x *fixture) known(f *fleet.Fleet, count int) {
	x.t.Helper()
	require.Eventually(x.t, func() bool { return len(f.Members("gateway")) == count }, 30*time.Second, time.Millisecond)
}

func explain(t *testing.T, f *fleet.Fleet, user string) []fleet.Answer[gatewayv1.ExplainResponse] {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	answers, err := fleet.AskAll[gatewayv1.ExplainResponse](ctx, f, "gateway", "Explain", &gatewayv1.ExplainRequest{UserId: user, Seq: 7})
	require.NoError(t, err)
	return answers
}

func TestAskAll(t *testing.T) {
	x := setup(t)
	asker, _ := x.run("delivery", "d", nil)
	require.Empty(t, explain(t, asker, "ann"), "nobody is there")
	for i := range 3 {
		name := fmt.Sprintf("gw-%d", i)
		x.run("gateway", name, &gateway{name: name})
	}
	x.known(asker, 3)
	answers := explain(t, asker, "ann")
	require.Len(t, answers, 3)
	for i, answer := range answers {
		require.NoError(t, answer.Err)
		require.Equal(t, fmt.Sprintf("gw-%d", i), answer.Instance)
		require.Equal(t, answer.Instance, answer.Response.GetGateway())
		require.EqualValues(t, 7, answer.Response.GetStartedMs())
	}
}

func TestOneThatFails(t *testing.T) {
	x := setup(t)
	asker, _ := x.run("delivery", "d", nil)
	x.run("gateway", "a", &gateway{name: "a"})
	x.run("gateway", "b", &gateway{name: "b"})
	x.known(asker, 2)
	for user, want := range map[string]codes.Code{"fail:b": codes.NotFound, "panic:b": codes.Internal, "plain:b": codes.Internal, "large:b": codes.ResourceExhausted} {
		answers := explain(t, asker, user)
		require.Len(t, answers, 2)
		require.NoError(t, answers[0].Err)
		require.Equal(t, want, status.Code(answers[1].Err), user)
		require.NotContains(t, answers[1].Err.Error(), "mind", "what has no code is for the log")
	}
}

// An instance that does not answer is listed as missing. The answers of the others are still returned.
func TestOneThatIsSilent(t *testing.T) {
	x := setup(t)
	asker, _ := x.run("delivery", "d", nil)
	silent := &gateway{name: "b", entered: make(chan struct{}, 16)}
	x.run("gateway", "a", &gateway{name: "a"})
	x.run("gateway", "b", silent)
	x.known(asker, 2)
	ask := func(timeout time.Duration) []fleet.Answer[gatewayv1.ExplainResponse] {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		answers, err := fleet.AskAll[gatewayv1.ExplainResponse](ctx, asker, "gateway", "Explain", &gatewayv1.ExplainRequest{UserId: "silent:b"})
		require.NoError(t, err)
		require.Len(t, answers, 2)
		return answers
	}
	timeout := 200 * time.Millisecond
	answers := ask(timeout)
	for answers[0].Err != nil && timeout < time.Minute { // a busy machine needs longer for the one that answers
		timeout *= 2
		answers = ask(timeout)
	}
	require.NoError(t, answers[0].Err)
	<-silent.entered
	require.Equal(t, "b", answers[1].Instance)
	require.Equal(t, codes.DeadlineExceeded, status.Code(answers[1].Err))
}

// An instance that stopped cleanly is not waited for.
func TestLeaving(t *testing.T) {
	x := setup(t)
	asker, _ := x.run("delivery", "d", nil)
	x.run("gateway", "a", &gateway{name: "a"})
	_, stop := x.run("gateway", "b", &gateway{name: "b"})
	x.known(asker, 2)
	stop()
	x.known(asker, 1)
	require.Len(t, explain(t, asker, "ann"), 1)
}

func TestAskOne(t *testing.T) {
	x := setup(t)
	asker, _ := x.run("delivery", "d", nil)
	x.run("gateway", "a", &gateway{name: "a"})
	x.run("gateway", "b", &gateway{name: "b"})
	x.known(asker, 2)
	ask := func(instance, method, user string) (*gatewayv1.ExplainResponse, error) {
		return fleet.AskOne[gatewayv1.ExplainResponse](t.Context(), asker, instance, "gateway", method, &gatewayv1.ExplainRequest{UserId: user})
	}
	answer, err := ask("b", "Explain", "")
	require.NoError(t, err)
	require.Equal(t, "b", answer.GetGateway())
	_, err = ask("c", "Explain", "")
	require.Equal(t, codes.Unavailable, status.Code(err))
	_, err = ask("a", "Divine", "")
	require.Equal(t, codes.Unimplemented, status.Code(err))
	_, err = ask("a", "GetGateway", "")
	require.Equal(t, codes.Unimplemented, status.Code(err), "the service has it, this implementation does not")
	_, err = ask("a", "Explain", "fail")
	require.Equal(t, codes.NotFound, status.Code(err))
}

// Queries above the limit of concurrent queries are refused, not queued.
func TestTooManyQuestions(t *testing.T) {
	x := setup(t)
	asker, _ := x.run("delivery", "d", nil)
	const turns = 16
	busy := &gateway{name: "a", entered: make(chan struct{}, turns)}
	x.run("gateway", "a", busy)
	x.known(asker, 1)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{}, turns)
	for range turns {
		go func() {
			_, _ = fleet.AskOne[gatewayv1.ExplainResponse](ctx, asker, "a", "gateway", "Explain", &gatewayv1.ExplainRequest{UserId: "silent"})
			ended <- struct{}{}
		}()
	}
	for range turns {
		<-busy.entered
	}
	_, err := fleet.AskOne[gatewayv1.ExplainResponse](t.Context(), asker, "a", "gateway", "Explain", &gatewayv1.ExplainRequest{})
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	cancel()
	for range turns {
		<-ended
	}
}

// publish sends a message on a subject of the fleet without being an instance.
func (x *fixture) publish(subject string, alive ...*brokerv1.Alive) {
	x.t.Helper()
	nc := x.nc()
	for _, a := range alive {
		data, err := a.MarshalVT()
		require.NoError(x.t, err)
		require.NoError(x.t, nc.Publish(subject, data))
	}
	require.NoError(x.t, nc.Flush())
}

// Names come from other instances and are stored, so their size must be limited. They also become parts of subjects.
func TestNamesThatAreNone(t *testing.T) {
	x := setup(t)
	asker, _ := x.run("delivery", "d", nil)
	x.run("gateway", "a", &gateway{name: "a"})
	x.known(asker, 1) // the instance has subscribed
	long := strings.Repeat("x", 65)
	x.publish("ops.alive",
		&brokerv1.Alive{Instance: long, Service: "gateway"}, &brokerv1.Alive{Instance: "c", Service: long},
		&brokerv1.Alive{Instance: "", Service: "gateway"}, &brokerv1.Alive{Instance: "a.>", Service: "gateway"},
		&brokerv1.Alive{Instance: "b", Service: "gateway", Level: 7})
	x.known(asker, 2)
	require.Equal(t, "b", asker.Members("gateway")[1].Instance)
	require.Equal(t, conversation.MaxLevel(), asker.Members("gateway")[0].Level, "an instance says which level it knows")
	require.Equal(t, conversation.Level(7), asker.Members("gateway")[1].Level)
	require.Empty(t, asker.Members(long))
}

// However often signs of life are requested, an instance sends only a few per second, because every instance receives
// them.
func TestEverybodyIsAskedTooOften(t *testing.T) {
	x := setup(t)
	listener := x.nc()
	said, err := listener.SubscribeSync("ops.alive")
	require.NoError(t, err)
	require.NoError(t, listener.Flush())
	x.run("gateway", "a", &gateway{name: "a"})
	for range 2 { // at the start, and because it requested them itself
		_, err = said.NextMsg(30 * time.Second)
		require.NoError(t, err)
	}
	const calls = 10_000
	x.publish("ops.who", make([]*brokerv1.Alive, calls)...)
	_, err = said.NextMsg(30 * time.Second)
	require.NoError(t, err, "the last call is answered")
	require.NoError(t, listener.Flush())
	pending, _, err := said.Pending()
	require.NoError(t, err)
	require.Less(t, pending, calls/10)
}
