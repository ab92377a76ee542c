package gateway

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"

	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/frame"

	"github.com/runnelhq/runnel/services/gateway/gatewaytest"
	"github.com/runnelhq/runnel/services/gateway/link/memory"
	"github.com/runnelhq/runnel/services/gateway/link/outbox"
	"github.com/runnelhq/runnel/services/gateway/wire"
)

// farewell is the close that a client received, and when.
type farewell struct {
	at    time.Duration // time since the drain began
	delay time.Duration // the delay that the client was asked to wait
	code  errcode.CloseCode
	left  float64 // connections that were still open
}

// drained is a gateway with sessions on links in memory, in a synctest bubble.
type drained struct {
	*Gateway

	t         *testing.T
	begun     time.Time
	farewells chan farewell
}

func inDrain(t *testing.T, settings []string, test func(*drained)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		d := &drained{
			Gateway: newGateway(t, nil, &gatewaytest.Store{Partitions: 4, Level: 1}, settings...),
			t:       t, begun: time.Now(), farewells: make(chan farewell, 100),
		}
		test(d)
		d.cancel()
		d.sessions.Wait()
		d.outboxes.Writers.Wait()
	})
}

// drain closes all sessions, as the settings say.
func (d *drained) drain() {
	drainPlan{rate: d.cfg.DrainRate, window: d.cfg.Drain}.drain(d.sessions.Close(), d.metrics.DrainLeft, d.log)
}

// client opens a session. If listens is true, the client reads everything and answers a close.
func (d *drained) client(listens bool) *memory.Client {
	number := d.sessions.NextNumber()
	l, far := memory.New(d.outboxes, number, wire.WebSocket(frame.Proto))
	s := d.sessions.Begin(l, number)
	require.NotNil(d.t, s)
	go l.Serve(s)
	d.t.Cleanup(far.Lose)
	if listens {
		go d.listen(far)
	}
	return far
}

func (d *drained) listen(far *memory.Client) {
	var heard farewell
	for {
		message, code, err := far.Next()
		switch {
		case err != nil:
			return
		case code != 0:
			heard.code = code
			d.farewells <- heard
			return
		}
		_ = frame.DecodeServer(frame.Proto, message, func(f *clientv1.ServerFrame) error {
			if goAway := f.GetGoAway(); goAway != nil {
				heard = farewell{
					at: time.Since(d.begun), delay: time.Duration(goAway.GetReconnectDelayMs()) * time.Millisecond, left: testutil.ToFloat64(d.metrics.DrainLeft),
				}
			}
			return nil
		})
	}
}

// Clients are closed one after another at the configured rate, each with the same code, and the drain ends with the last
// one.
func TestADrainSendsClientsAwayOneByOne(t *testing.T) {
	inDrain(t, []string{"--drain=10s", "--drain-rate=1"}, func(d *drained) {
		for range 4 {
			d.client(true)
		}
		d.drain()
		require.Equal(d.t, 3*time.Second, time.Since(d.begun), "the drain does not wait for clients that have left")
		require.InDelta(d.t, 0, testutil.ToFloat64(d.metrics.DrainLeft), 0)
		synctest.Wait()
		for i := range 4 {
			heard := <-d.farewells
			require.Equal(d.t, time.Duration(i)*time.Second, heard.at)
			require.Zero(d.t, heard.delay)
			require.Equal(d.t, errcode.CloseGoingAway, heard.code)
			require.LessOrEqual(d.t, heard.left, float64(4-i))
		}
		connections, _ := d.sessions.Count()
		require.Zero(d.t, connections)
	})
}

// If the window is too short for the rate, all connections are closed in time, and each client is asked to reconnect at its
// own time.
func TestADrainThatIsTooShortAsksClientsToWait(t *testing.T) {
	inDrain(t, []string{"--drain=1s", "--drain-rate=1"}, func(d *drained) {
		for range 5 {
			d.client(true)
		}
		d.drain()
		require.LessOrEqual(d.t, time.Since(d.begun), time.Second)
		synctest.Wait()
		for i := range 5 {
			heard := <-d.farewells
			require.Equal(d.t, time.Duration(i)*time.Second, heard.at+heard.delay, "one second after the previous client")
		}
	})
}

// A client that reads nothing and answers nothing delays the drain only for a bounded time.
func TestADrainHasADeadline(t *testing.T) {
	inDrain(t, []string{"--drain=0s"}, func(d *drained) {
		deaf := d.client(false)
		d.client(true)
		d.drain()
		require.LessOrEqual(d.t, time.Since(d.begun), outbox.CloseGrace+time.Second)
		require.Equal(d.t, errcode.CloseGoingAway, (<-d.farewells).code)
		deaf.Lose()
	})
}

// A drain without sessions ends at once, and no new session can begin.
func TestADrainOfNobodyIsOverAtOnce(t *testing.T) {
	inDrain(t, nil, func(d *drained) {
		d.drain()
		require.Zero(d.t, time.Since(d.begun))
		l, far := memory.New(d.outboxes, 1, wire.WebSocket(frame.Proto))
		require.Nil(d.t, d.sessions.Begin(l, 1))
		l.End()
		far.Lose()
		require.False(d.t, d.Overview().Draining)
		d.gate.Close()
		require.True(d.t, d.Overview().Draining)
	})
}
