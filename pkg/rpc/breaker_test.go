package rpc

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/runnelhq/runnel/pkg/telemetry"
)

// dependency is the service behind a breaker; answer decides the results of calls.
type dependency struct {
	*breaker

	tel *telemetry.Telemetry

	mu     sync.Mutex
	answer func(context.Context) error
	calls  int
}

func newDependency(cfg ClientConfig) *dependency {
	d := &dependency{tel: telemetry.Discard(), answer: succeed}
	d.breaker = newBreaker("history", cfg.withDefaults(), d.tel)
	return d
}

func (d *dependency) does(answer func(context.Context) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answer = answer
}

const called = "/service/method"

func (d *dependency) call(ctx context.Context) error { return d.callOf(ctx, called) }

func (d *dependency) callOf(ctx context.Context, method string) error {
	return d.unary(ctx, method, nil, nil, nil, func(ctx context.Context, _ string, _, _ any, _ *grpc.ClientConn, _ ...grpc.CallOption) error {
		d.mu.Lock()
		d.calls++
		answer := d.answer
		d.mu.Unlock()
		return answer(ctx)
	})
}

// made returns how many calls have reached the dependency since the previous call of made.
func (d *dependency) made() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.calls
	d.calls = 0
	return n
}

func (d *dependency) state(t *testing.T) float64 {
	t.Helper()
	families, err := d.tel.Registry.Gather()
	require.NoError(t, err)
	for _, family := range families {
		if family.GetName() == "runnel_rpc_breaker_state" {
			return family.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatal("there is no metric of the state")
	return 0
}

func succeed(context.Context) error { return nil }

func fail(code codes.Code) func(context.Context) error {
	return func(context.Context) error { return status.Error(code, "no") }
}

// hang answers like gRPC when a server does not respond.
func hang(ctx context.Context) error {
	<-ctx.Done()
	return status.FromContextError(ctx.Err()).Err()
}

// crash makes the dependency fail until the breaker opens.
func (d *dependency) crash(t *testing.T) {
	t.Helper()
	d.does(fail(codes.Unavailable))
	for range breakerLeast {
		require.Equal(t, codes.Unavailable, status.Code(d.call(t.Context())))
	}
	require.Equal(t, breakerLeast, d.made())
	require.InDelta(t, 1, d.state(t), 0)
}

func TestTheBreakerOpensAndTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDependency(ClientConfig{})
		d.crash(t)
		require.Equal(t, codes.Unavailable, status.Code(d.call(t.Context())))
		require.Zero(t, d.made(), "no call is made")
		require.InDelta(t, 1, testutil.ToFloat64(d.open), 0)

		time.Sleep(breakerPause + 1)
		for range 5 {
			require.Equal(t, codes.Unavailable, status.Code(d.call(t.Context())))
		}
		require.Equal(t, 1, d.made(), "one call tries, and fails")

		d.does(succeed)
		time.Sleep(breakerPause + 1)
		for range 5 {
			require.NoError(t, d.call(t.Context()))
		}
		require.Equal(t, 5, d.made(), "one that succeeds is enough")
		require.InDelta(t, 0, d.state(t), 0)
	})
}

func TestAnswersAreNoFailures(t *testing.T) {
	for _, code := range []codes.Code{codes.Aborted, codes.NotFound, codes.InvalidArgument, codes.PermissionDenied, codes.Internal, codes.Canceled, codes.ResourceExhausted} {
		d := newDependency(ClientConfig{})
		d.does(fail(code))
		for range 10 * breakerLeast {
			require.Equal(t, code, status.Code(d.call(t.Context())))
		}
		require.Equal(t, 10*breakerLeast, d.made(), code)
	}
	for _, code := range []codes.Code{codes.Unavailable, codes.DeadlineExceeded} {
		d := newDependency(ClientConfig{})
		d.does(fail(code))
		for range 10 * breakerLeast {
			_ = d.call(t.Context())
		}
		require.Equal(t, breakerLeast, d.made(), code)
	}
}

// A service is called as long as fewer than half of the calls fail.
func TestSomeFailuresAreNotEnough(t *testing.T) {
	d := newDependency(ClientConfig{})
	n := 0
	d.does(func(context.Context) error {
		if n++; n%5 < 2 {
			return status.Error(codes.Unavailable, "no")
		}
		return nil
	})
	for range 500 {
		_ = d.call(t.Context())
	}
	require.Equal(t, 500, d.made())
}

// Earlier successes do not prevent the detection of a hanging service.
func TestAServiceThatHangsIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDependency(ClientConfig{Timeout: 5 * time.Second})
		for range 10_000 {
			require.NoError(t, d.call(t.Context()))
		}
		d.does(hang)
		var calling sync.WaitGroup
		for range breakerLeast {
			calling.Go(func() {
				if code := status.Code(d.call(context.Background())); code != codes.DeadlineExceeded {
					t.Errorf("a call without a deadline ended with %v", code)
				}
			})
		}
		begun := time.Now()
		calling.Wait()
		require.Equal(t, 5*time.Second, time.Since(begun), "a call without a deadline has one")
		d.made()
		require.Equal(t, codes.Unavailable, status.Code(d.call(t.Context())))
		require.Zero(t, d.made())

		// The service recovers while a probe call hangs.
		time.Sleep(breakerPause + 1)
		calling.Go(func() { _ = d.call(context.Background()) })
		synctest.Wait()
		d.does(succeed)
		back := time.Now()
		for d.call(t.Context()) != nil {
			time.Sleep(10 * time.Millisecond)
		}
		require.LessOrEqual(t, time.Since(back), 3*time.Second, "it is used again soon")
		calling.Wait()
	})
}

func TestACallersOwnDeadlineHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDependency(ClientConfig{Timeout: time.Second})
		d.does(hang)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begun := time.Now()
		require.Equal(t, codes.DeadlineExceeded, status.Code(d.call(ctx)))
		require.Equal(t, time.Minute, time.Since(begun))
	})
}

// The number of calls in flight is limited, and so are the number and the time of waiting calls.
func TestCallsDoNotPileUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 4
		d := newDependency(ClientConfig{MaxInFlight: size, Timeout: time.Hour})
		release := make(chan struct{})
		d.does(func(context.Context) error { <-release; return nil })
		results := make(chan error, 1000)
		var calling sync.WaitGroup
		begun := time.Now()
		start := func(n int) {
			for range n {
				calling.Go(func() { results <- d.call(context.Background()) })
			}
			synctest.Wait()
		}
		start(size + queueFactor*size)
		require.Equal(t, size, d.made())
		require.Empty(t, results)
		require.InDelta(t, size, testutil.ToFloat64(d.inflight), 0)
		start(3)
		require.Len(t, results, 3, "beyond the queue calls are refused at once")
		for range 3 {
			require.Equal(t, codes.Unavailable, status.Code(<-results))
		}
		require.Equal(t, begun, time.Now())

		time.Sleep(queueTime)
		synctest.Wait()
		require.Len(t, results, queueFactor*size, "nobody waits for long")
		for range queueFactor * size {
			require.Equal(t, codes.Unavailable, status.Code(<-results))
		}
		start(1)
		close(release)
		calling.Wait()
		for range size + 1 {
			require.NoError(t, <-results)
		}
		require.InDelta(t, 0, testutil.ToFloat64(d.inflight), 0)
		require.InDelta(t, 3+queueFactor*size, testutil.ToFloat64(d.full), 0)
		require.InDelta(t, 0, d.state(t), 0, "calls that were not made say nothing about the service")
	})
}

// Hanging calls may hold all slots, but a probe call must still be made.
func TestATryNeedsNoPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDependency(ClientConfig{})
		d.crash(t)
		for range cap(d.gate(called).bulkhead.slots) {
			require.True(t, d.gate(called).bulkhead.enter(t.Context()))
		}
		time.Sleep(breakerPause + 1)
		d.does(succeed)
		begun := time.Now()
		require.NoError(t, d.call(t.Context()))
		require.Equal(t, begun, time.Now())
	})
}

func TestACallThatWaitedIsNotMadeWhenTheBreakerOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDependency(ClientConfig{MaxInFlight: 1})
		require.True(t, d.gate(called).bulkhead.enter(t.Context()))
		waited := make(chan error, 1)
		go func() { waited <- d.call(context.Background()) }()
		synctest.Wait()
		d.gate(called).breaker.Open()
		d.gate(called).bulkhead.leave()
		require.ErrorIs(t, <-waited, errOpen)
		require.Zero(t, d.made())
	})
}

// Calls that began before the breaker opened end one after another; they must not open it again.
func TestWhatBeganBeforeSaysNothingAboutNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDependency(ClientConfig{})
		release := make(chan struct{})
		d.does(func(context.Context) error { <-release; return status.Error(codes.Unavailable, "late") })
		var late sync.WaitGroup
		for range 5 * breakerLeast {
			late.Go(func() { _ = d.call(context.Background()) })
		}
		synctest.Wait()
		d.made()
		d.crash(t)
		time.Sleep(breakerPause + 1)
		d.does(succeed)
		require.NoError(t, d.call(t.Context()))
		close(release)
		late.Wait()
		require.NoError(t, d.call(t.Context()))
		require.InDelta(t, 0, d.state(t), 0)
	})
}

// If the caller of a probe call cancels, another call may probe.
func TestATryThatIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDependency(ClientConfig{})
		d.crash(t)
		time.Sleep(breakerPause + 1)
		d.does(hang)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- d.call(ctx) }()
		synctest.Wait()
		cancel()
		require.Equal(t, codes.Canceled, status.Code(<-ended))
		d.does(succeed)
		time.Sleep(breakerPause + 1)
		require.NoError(t, d.call(t.Context()))
	})
}

// Health checks always reach the service, because they query its state.
func TestHealthIsAlwaysAsked(t *testing.T) {
	d := newDependency(ClientConfig{})
	d.crash(t)
	asked := errors.New("asked")
	err := d.unary(metadata.NewOutgoingContext(t.Context(), nil), "/grpc.health.v1.Health/Check", nil, nil, nil,
		func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error { return asked })
	require.ErrorIs(t, err, asked)
}

// A flood of failing reads must not stop commits and the renewal of leases.
func TestEachMethodIsJudgedByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDependency(ClientConfig{MaxInFlight: 1})
		d.crash(t)
		d.does(succeed)
		require.ErrorIs(t, d.call(t.Context()), errOpen)
		require.NoError(t, d.callOf(t.Context(), "/service/other"), "another method is called")
		require.InDelta(t, 1, d.state(t), 0, "a person sees that something is wrong")
		time.Sleep(breakerPause + 1)
		require.NoError(t, d.call(t.Context()))
		require.InDelta(t, 0, d.state(t), 0)

		// Hanging calls do not take the slots of another method either.
		require.True(t, d.gate(called).bulkhead.enter(t.Context()))
		begun := time.Now()
		require.NoError(t, d.callOf(t.Context(), "/service/other"))
		require.Equal(t, begun, time.Now())
	})
}

// A probe call keeps its caller's deadline, so a store that is slow after its recovery does not count as down
// permanently.
func TestATryMayBeSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDependency(ClientConfig{})
		d.crash(t)
		const slow = probeTimeout + time.Second
		d.does(func(ctx context.Context) error {
			select {
			case <-time.After(slow):
				return nil
			case <-ctx.Done():
				return hang(ctx)
			}
		})
		time.Sleep(breakerPause + 1)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- d.call(ctx) }()
		time.Sleep(probeTimeout + breakerPause + 1)
		synctest.Wait()
		require.Empty(t, ended)
		d.made()
		go func() { _ = d.call(ctx) }() // other probes are allowed meanwhile
		synctest.Wait()
		require.Equal(t, 1, d.made())
		require.NoError(t, <-ended)
		require.InDelta(t, 0, d.state(t), 0, "its answer counts")
	})
}

// A method that failed once and is no longer called is not reported to operators.
func TestAMethodThatNobodyAsksForIsNoTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDependency(ClientConfig{})
		d.crash(t)
		time.Sleep(breakerWindow)
		require.InDelta(t, 1, d.state(t), 0)
		time.Sleep(time.Millisecond)
		require.InDelta(t, 0, d.state(t), 0)
		_ = d.call(t.Context()) // a probe that fails
		require.InDelta(t, 1, d.state(t), 0)
	})
}

// However many callers wait when a probe is allowed, exactly one of them makes the probe, and its outcome counts. If the
// probe were lost, no further probe could be made.
func TestATryIsNeverLost(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			tel := telemetry.Discard()
			tel.Log = slog.New(yielding{slog.DiscardHandler})
			d := &dependency{tel: tel, breaker: newBreaker("history", ClientConfig{}.withDefaults(), tel)}
			d.crash(t)
			d.does(func(context.Context) error {
				time.Sleep(time.Millisecond)
				return status.Error(codes.Unavailable, "no")
			})
			time.Sleep(breakerPause + 1)
			var calling sync.WaitGroup
			for range 8 {
				calling.Go(func() { _ = d.call(t.Context()) })
			}
			calling.Wait()
			d.does(succeed)
			time.Sleep(breakerPause + 1)
			require.NoError(t, d.call(t.Context()))
		})
	}
}

// yielding lets other goroutines run at each log line, which is when the state of a circuit changes.
type yielding struct{ slog.Handler }

func (yielding) Enabled(context.Context, slog.Level) bool { return true }

func (yielding) Handle(context.Context, slog.Record) error {
	for range 100 {
		runtime.Gosched()
	}
	return nil
}

func (y yielding) WithAttrs([]slog.Attr) slog.Handler { return y }
