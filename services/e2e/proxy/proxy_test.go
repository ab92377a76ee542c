package proxy_test

import (
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/runnelhq/runnel/services/e2e/proxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bed is a proxy before a target whose connections the test holds.
type bed struct {
	*proxy.Proxy
	target *net.TCPListener
}

func newBed(t *testing.T) *bed {
	t.Helper()
	target, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	p, err := proxy.Listen(target.Addr().String())
	require.NoError(t, err)
	b := &bed{p, target}
	t.Cleanup(func() {
		p.Close()
		require.NoError(t, b.target.Close())
	})
	return b
}

// connect returns both ends of a connection through the proxy.
func (b *bed) connect(t *testing.T) (near, far net.Conn) {
	t.Helper()
	near, err := net.Dial("tcp", b.Addr())
	require.NoError(t, err)
	t.Cleanup(func() { _ = near.Close() })
	far, err = b.target.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { _ = far.Close() })
	return near, far
}

func send(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	_, err := io.WriteString(conn, text)
	require.NoError(t, err)
}

func expect(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(time.Minute)))
	got := make([]byte, len(text))
	_, err := io.ReadFull(conn, got)
	require.NoError(t, err)
	require.Equal(t, text, string(got))
}

// expectNothing reads for a moment. What must not come does not come later either, so a slow machine makes no difference.
func expectNothing(t *testing.T, conn net.Conn) {
	t.Helper()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(30*time.Millisecond)))
	n, err := conn.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.Zero(t, n)
}

func expectEnd(t *testing.T, conn net.Conn, want error) {
	t.Helper()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(time.Minute)))
	_, err := conn.Read(make([]byte, 1))
	require.ErrorIs(t, err, want)
}

func TestEverythingPassesInGoodWeather(t *testing.T) {
	b := newBed(t)
	near, far := b.connect(t)
	text := strings.Repeat("0123456789abcdef", 1<<12)
	go io.WriteString(near, text)
	expect(t, far, text)
	go io.WriteString(far, text)
	expect(t, near, text)
	require.Equal(t, 1, b.Connections())
	require.NoError(t, near.(*net.TCPConn).CloseWrite())
	expectEnd(t, far, io.EOF)
	send(t, far, "still")
	expect(t, near, "still")
	require.NoError(t, far.Close())
	expectEnd(t, near, io.EOF)
	require.Equal(t, 1, b.Carried())
}

func TestNewConnectionsGoToTheNewTarget(t *testing.T) {
	b, other := newBed(t), newBed(t)
	near, far := b.connect(t)
	b.Aim(other.target.Addr().String())
	later, err := net.Dial("tcp", b.Addr())
	require.NoError(t, err)
	defer later.Close()
	elsewhere, err := other.target.Accept()
	require.NoError(t, err)
	defer elsewhere.Close()
	send(t, later, "later")
	expect(t, elsewhere, "later")
	send(t, near, "near")
	expect(t, far, "near")
}

func TestWhatIsHeldGoesOnLater(t *testing.T) {
	b := newBed(t)
	near, far := b.connect(t)
	b.Set(proxy.Weather{Down: proxy.Flow{Hold: true}})
	send(t, near, "question")
	expect(t, far, "question") // one way only
	send(t, far, "answer")
	require.NoError(t, far.Close())
	expectNothing(t, near)
	b.Set(proxy.Weather{})
	expect(t, near, "answer")
	expectEnd(t, near, io.EOF)
}

func TestALostConnectionIsHalfOpenAndThenReset(t *testing.T) {
	b := newBed(t)
	near, far := b.connect(t)
	other, remote := b.connect(t)
	b.Set(proxy.Weather{Up: proxy.Flow{Lose: true}, Down: proxy.Flow{Lose: true}})
	send(t, near, "lost")
	require.NoError(t, near.Close())
	expectNothing(t, far) // neither the bytes nor the end arrive
	b.Set(proxy.Weather{})
	expectEnd(t, far, syscall.ECONNRESET)
	send(t, other, "nothing was lost here")
	expect(t, remote, "nothing was lost here")
}

func TestOneWayMayBeLostAlone(t *testing.T) {
	b := newBed(t)
	near, far := b.connect(t)
	b.Set(proxy.Weather{Down: proxy.Flow{Lose: true}})
	send(t, near, "question")
	expect(t, far, "question")
	send(t, far, "answer")
	expectNothing(t, near)
	// A loss in the other direction does not restore bytes that were lost before.
	b.Set(proxy.Weather{Up: proxy.Flow{Lose: true}})
	expectEnd(t, near, syscall.ECONNRESET)
}

func TestACutResetsAndRefuses(t *testing.T) {
	b := newBed(t)
	near, far := b.connect(t)
	b.Set(proxy.Weather{Refuse: true})
	require.Equal(t, 1, b.Reset())
	expectEnd(t, near, syscall.ECONNRESET)
	expectEnd(t, far, syscall.ECONNRESET)
	b.expectReset(t)
	b.Set(proxy.Weather{})
	near, far = b.connect(t)
	send(t, near, "again")
	expect(t, far, "again")
}

func TestAHangupEndsInOrder(t *testing.T) {
	b := newBed(t)
	near, far := b.connect(t)
	b.Set(proxy.Weather{Up: proxy.Flow{Hold: true}, Down: proxy.Flow{Hold: true}})
	require.Equal(t, 1, b.Hangup())
	expectEnd(t, near, io.EOF)
	expectEnd(t, far, io.EOF)
}

// expectReset connects and is reset: at once, or when it reads.
func (b *bed) expectReset(t *testing.T) {
	t.Helper()
	conn, err := net.Dial("tcp", b.Addr())
	if err == nil {
		defer conn.Close()
		_, err = io.Copy(io.Discard, conn)
	}
	require.ErrorIs(t, err, syscall.ECONNRESET)
}

// A delay is tested with a value that no test could wait for: until the weather improves, nothing arrives.
func TestALongLine(t *testing.T) {
	b := newBed(t)
	near, far := b.connect(t)
	b.Set(proxy.Weather{Up: proxy.Flow{Delay: time.Hour}})
	send(t, near, "late")
	expectNothing(t, far)
	b.Set(proxy.Weather{})
	expect(t, far, "late")
	b.Set(proxy.Weather{Up: proxy.Flow{Delay: time.Millisecond}})
	send(t, near, "soon")
	expect(t, far, "soon")
}

func TestAThinLine(t *testing.T) {
	b := newBed(t)
	near, far := b.connect(t)
	const slow = 1 // bytes per second
	b.Set(proxy.Weather{Up: proxy.Flow{Rate: slow}})
	begun := time.Now()
	send(t, near, "drop")
	expect(t, far, "dr")
	require.GreaterOrEqual(t, time.Since(begun), time.Second)
	b.Set(proxy.Weather{})
	expect(t, far, "op")
}

func TestATargetThatIsAway(t *testing.T) {
	b := newBed(t)
	require.NoError(t, b.target.Close())
	b.expectReset(t)
	var err error
	b.target, err = net.ListenTCP("tcp", b.target.Addr().(*net.TCPAddr))
	require.NoError(t, err)
	_, far := b.connect(t)
	require.NoError(t, far.Close())
}

func TestCloseEndsWhatIsHeldDelayedAndHalfOpen(t *testing.T) {
	b := newBed(t)
	held, _ := b.connect(t)
	b.Set(proxy.Weather{Up: proxy.Flow{Hold: true}, Down: proxy.Flow{Lose: true}})
	send(t, held, "held")
	_, far := b.connect(t)
	require.NoError(t, far.Close())
	b.Set(proxy.Weather{Up: proxy.Flow{Delay: time.Hour}, Down: proxy.Flow{Lose: true}})
	b.Close()
	b.Close()
	require.Zero(t, b.Connections())
	_, err := net.Dial("tcp", b.Addr())
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	_, err = held.Read(make([]byte, 1))
	require.Error(t, err)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
}
