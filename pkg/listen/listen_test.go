package listen

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/runnelhq/runnel/pkg/telemetry/telemetrytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// nowhere is a listener without a network.
type nowhere struct{ net.Listener }

// from is a connection from an address.
type from struct {
	net.Conn
	address net.Addr
}

func (f from) RemoteAddr() net.Addr { return f.address }

// bed contains a listener and a way to connect to it.
type bed struct {
	*testing.T
	*Listener

	log *telemetrytest.Log
}

func newBed(t *testing.T, cfg Config) *bed {
	t.Helper()
	b := &bed{T: t, log: &telemetrytest.Log{}}
	cfg.Name, cfg.Registerer, cfg.Log = "test", prometheus.NewRegistry(), slog.New(slog.NewTextHandler(b.log, nil))
	if cfg.MaxSockets == 0 {
		cfg.MaxSockets = 1000
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = time.Minute
	}
	var err error
	b.Listener, err = New(nowhere{}, cfg)
	require.NoError(t, err)
	return b
}

// connect makes a connection, and returns both of its ends. The server's end is nil if the listener refused it.
func (b *bed) connect(address string) (server *Conn, client net.Conn) {
	b.Helper()
	near, far := net.Pipe()
	b.Cleanup(func() { _, _ = near.Close(), far.Close() })
	return b.admit(from{near, &net.TCPAddr{IP: net.ParseIP(address), Port: 1}}), far
}

func (b *bed) closed(because reason) int { return int(testutil.ToFloat64(b.metrics.closed[because])) }

// open reports whether the client's end of a connection is still connected.
func open(c *Conn) bool {
	c.listener.mu.Lock()
	defer c.listener.mu.Unlock()
	return !c.released
}

// settled checks that the listener's tables are empty.
func (b *bed) settled() {
	b.Helper()
	require.Zero(b, b.sockets)
	require.Zero(b, b.all.Len())
	require.Empty(b, b.addresses)
	require.Empty(b, b.networks)
	require.Zero(b, testutil.ToFloat64(b.metrics.open))
	require.Zero(b, testutil.ToFloat64(b.metrics.unauthenticated))
}

func v4(i int) string       { return fmt.Sprintf("192.0.2.%d", i) }
func same(int) string       { return "192.0.2.1" }
func mapped(int) string     { return "::ffff:192.0.2.1" }
func rotating(i int) string { return fmt.Sprintf("2001:db8:1:2::%x", i+1) }
func site(i int) string     { return fmt.Sprintf("2001:db8:1:%x::1", i+1) }
func loopback(int) string   { return "127.0.0.1" }

// Each limit closes only the oldest of the sockets that count towards it.
func TestALimitClosesTheOldest(t *testing.T) {
	for name, c := range map[string]struct {
		cfg     Config
		address func(i int) string
		reason  reason
	}{
		"all sockets":         {Config{MaxSockets: 10}, v4, reasonUnauthenticated}, // both limits are the same
		"unauthenticated":     {Config{MaxUnauthenticated: 10}, v4, reasonUnauthenticated},
		"of an address":       {Config{MaxPerAddress: 10}, same, reasonAddress},
		"of a mapped address": {Config{MaxPerAddress: 10}, func(i int) string { return []func(int) string{same, mapped}[i%2](i) }, reasonAddress},
		"of a /64":            {Config{MaxPerAddress: 10}, rotating, reasonAddress},
		"of a /48":            {Config{MaxPerAddress: 5, MaxPerNetwork: 10}, site, reasonNetwork},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, c.cfg)
			stranger, _ := b.connect("198.51.100.7")
			require.True(t, stranger.Authenticated())
			var conns []*Conn
			for i := range 25 {
				conn, _ := b.connect(c.address(i))
				require.NotNil(t, conn, "the newest is always let in")
				conns = append(conns, conn)
			}
			most := 10
			if c.cfg.MaxSockets > 0 {
				most = 9 // the tenth socket is the other client's
			}
			for i, conn := range conns {
				require.Equal(t, i >= 25-most, open(conn), i)
				if !open(conn) {
					_, err := conn.Read(make([]byte, 1))
					require.Error(t, err, "the socket is closed")
				}
			}
			require.True(t, open(stranger))
			require.Equal(t, 25-most, b.closed(c.reason)+b.closed(reasonFull))
			for _, conn := range append(conns, stranger) {
				_ = conn.Close()
				_ = conn.Close()
			}
			b.settled()
		})
	}
}

// With a proxy on this machine, all clients have the same address.
func TestLoopbackHasNoLimitOfAnAddress(t *testing.T) {
	b := newBed(t, Config{MaxPerAddress: 2, MaxPerNetwork: 2})
	for i := range 20 {
		conn, _ := b.connect(loopback(i))
		require.NotNil(t, conn)
	}
	require.Equal(t, 20, b.all.Len())
}

// Authenticated clients are never closed to make room. If all sockets are theirs, new sockets are refused.
func TestAuthenticatedClientsStay(t *testing.T) {
	b := newBed(t, Config{MaxSockets: 3, MaxUnauthenticated: 2, MaxPerAddress: 1})
	for range 3 {
		conn, _ := b.connect(same(0))
		require.True(t, conn.Authenticated())
		require.True(t, conn.Authenticated())
	}
	conn, far := b.connect(v4(9))
	require.Nil(t, conn)
	_, err := far.Read(make([]byte, 1))
	require.Error(t, err)
	require.Equal(t, 1, b.closed(reasonFull))
	require.Equal(t, 3, b.sockets)
}

// A client that is not authenticated in time is closed, whatever it sends. An authenticated client has no time limit.
func TestTheTimeToAuthenticateIsLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, Config{Timeout: time.Minute})
		slow, far := b.connect(v4(1))
		known, _ := b.connect(v4(2))
		require.True(t, known.Authenticated())
		go func() { // like a server that reads one request after another
			buffer := make([]byte, 1)
			for {
				if _, err := slow.Read(buffer); err != nil {
					return
				}
				_ = slow.SetDeadline(time.Now().Add(time.Hour))
			}
		}()
		var err error
		start := time.Now()
		for err == nil {
			_, err = far.Write([]byte("x"))
			time.Sleep(time.Second)
		}
		require.InDelta(t, time.Minute.Seconds(), time.Since(start).Seconds(), 2)
		require.Equal(t, 1, b.closed(reasonTimeout))
		require.False(t, slow.Authenticated(), "too late")
		time.Sleep(time.Hour)
		synctest.Wait()
		require.True(t, open(known))
		_ = known.Close()
		b.settled()
	})
}

// A flood of closed sockets causes one warning a minute, which contains the number of suppressed ones.
func TestAFloodIsOneWarning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// No connection may time out when the next warning is due: it would be the one that warns.
		b := newBed(t, Config{MaxPerAddress: 1, Timeout: time.Hour})
		for i := range 1001 {
			b.connect(same(i))
		}
		require.Equal(t, 1, strings.Count(b.log.String(), "\n"))
		time.Sleep(warningInterval)
		b.connect(same(0))
		require.Equal(t, 2, strings.Count(b.log.String(), "\n"))
		require.Contains(t, b.log.String(), "omitted=999")
	})
}

// If the process has no descriptor left, an unauthenticated socket is closed to free one.
func TestWithoutDescriptorsTheOldestIsClosed(t *testing.T) {
	b := newBed(t, Config{})
	oldest, _ := b.connect(v4(1))
	newest, _ := b.connect(v4(2))
	b.closeOldest()
	require.False(t, open(oldest))
	require.True(t, open(newest))
	b.closeOldest()
	b.closeOldest()
	require.Equal(t, 2, b.closed(reasonDescriptors))
	b.settled()
}

func TestSharesOfTheDescriptorLimit(t *testing.T) {
	for limit, want := range map[int][3]int{
		512:     {256, 64, 32},
		1024:    {512, 128, 64},
		65536:   {63488, 512, 128},
		1 << 20: {1<<20 - 2048, 512, 128},
		1:       {1, 1, 1},
	} {
		got := [3]int{share(ForClients, limit), share(ForServices, limit), share(ForOperators, limit)}
		require.Equal(t, want, got, limit)
		if limit > 1 {
			require.GreaterOrEqual(t, limit-got[0]-got[1]-got[2], min(limit/8, 1024), "the rest is for files")
		}
	}
	for setting, want := range map[int]int{7: 7, 0: share(ForOperators, Descriptors())} {
		got, err := MaxSockets(ForOperators, setting)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	_, err := MaxSockets(ForClients, -1)
	require.ErrorIs(t, err, ErrMaxSockets)
	require.Greater(t, Descriptors(), 16)
}

func TestListenersShareTheirMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	for _, name := range []string{"a", "b", "a"} {
		l, err := Open(Config{Name: name, Address: "127.0.0.1:0", MaxSockets: 1, Timeout: time.Second, Registerer: registry})
		require.NoError(t, err)
		require.NoError(t, l.Close())
		_, err = l.Accept()
		require.ErrorIs(t, err, net.ErrClosed)
	}
	count, err := testutil.GatherAndCount(registry, "runnel_listener_closed_total")
	require.NoError(t, err)
	require.Equal(t, 2*int(numReasons), count)

	_, err = Open(Config{Address: "127.0.0.1:0", Registerer: registry})
	require.ErrorContains(t, err, "must be limited")
	_, err = Open(Config{Address: "192.0.2.1:1", Registerer: registry})
	require.Error(t, err)
}

func TestGroupsOfAddresses(t *testing.T) {
	for address, want := range map[string][2]string{
		"192.0.2.1":         {"192.0.2.1/32", ""},
		"::ffff:192.0.2.1":  {"192.0.2.1/32", ""},
		"2001:db8:1:2:3::4": {"2001:db8:1:2::/64", "2001:db8:1::/48"},
		"fe80::1%eth0":      {"fe80::/64", "fe80::/48"},
	} {
		parsed := netip.MustParseAddr(address)
		require.Equal(t, want[0], AddressOf(parsed).String())
		if want[1] == "" {
			require.False(t, NetworkOf(parsed).IsValid())
		} else {
			require.Equal(t, want[1], NetworkOf(parsed).String())
		}
	}
	require.False(t, AddressOf(netip.Addr{}).IsValid())
	require.False(t, NetworkOf(netip.Addr{}).IsValid())
}
