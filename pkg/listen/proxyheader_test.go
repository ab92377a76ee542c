package listen

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// block makes a header of version 2.
func block(command, family byte, body []byte) string {
	head := append([]byte(proxyV2), 0x20|command, family)
	return string(append(binary.BigEndian.AppendUint16(head, uint16(len(body))), body...))
}

func addresses(client, server string) []byte {
	a, b := netip.MustParseAddr(client), netip.MustParseAddr(server)
	return append(append(a.AsSlice(), b.AsSlice()...), 0x30, 0x39, 0x01, 0xbb)
}

const rest = "GET / HTTP/1.1\r\n"

func TestProxyHeaders(t *testing.T) {
	extension := append([]byte{0x04, 1, 0}, make([]byte, 256)...)
	for header, want := range map[string]string{
		"PROXY TCP4 192.0.2.7 10.0.0.1 12345 443\r\n":           "192.0.2.7:12345",
		"PROXY TCP6 2001:db8::7 2001:db8::1 12345 443\r\n":      "[2001:db8::7]:12345",
		"PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 12345 443\r\n": "192.0.2.7:12345",
		"PROXY UNKNOWN\r\n":                                                      "invalid AddrPort",
		"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n":                          "invalid AddrPort",
		block(1, 0x11, addresses("192.0.2.7", "10.0.0.1")):                       "192.0.2.7:12345",
		block(1, 0x21, addresses("2001:db8::7", "2001:db8::1")):                  "[2001:db8::7]:12345",
		block(1, 0x21, addresses("::ffff:192.0.2.7", "2001:db8::1")):             "192.0.2.7:12345",
		block(1, 0x11, append(addresses("192.0.2.7", "10.0.0.1"), extension...)): "192.0.2.7:12345",
		block(0, 0, nil): "invalid AddrPort",
		block(1, 0, nil): "invalid AddrPort",
	} {
		r := strings.NewReader(header + rest)
		got, err := readProxyHeader(iotest{r})
		require.NoError(t, err, "%q", header)
		require.Equal(t, want, got.String())
		left, err := io.ReadAll(r)
		require.NoError(t, err)
		require.Equal(t, rest, string(left), "what follows is the client's")
	}
}

// iotest reads one byte at a time.
type iotest struct{ io.Reader }

func (r iotest) Read(b []byte) (int, error) { return r.Reader.Read(b[:min(len(b), 1)]) }

func TestBadProxyHeaders(t *testing.T) {
	for name, header := range map[string]string{
		"none":                   "GET / HTTP/1.1\r\nHost: x\r\n",
		"half":                   "PROXY TCP4 192.0.2.7",
		"too long":               "PROXY TCP4 " + strings.Repeat("1", 1000) + "\r\n",
		"no port":                "PROXY TCP4 192.0.2.7 10.0.0.1 443\r\n",
		"a name":                 "PROXY TCP4 example.com 10.0.0.1 12345 443\r\n",
		"a port out of range":    "PROXY TCP4 192.0.2.7 10.0.0.1 99999 443\r\n",
		"the wrong family":       "PROXY TCP6 192.0.2.7 10.0.0.1 12345 443\r\n",
		"the other wrong family": "PROXY TCP4 2001:db8::7 10.0.0.1 12345 443\r\n",
		"a zone":                 "PROXY TCP6 fe80::1%eth0 2001:db8::1 12345 443\r\n",
		"another protocol":       "PROXY UDP4 192.0.2.7 10.0.0.1 12345 443\r\n",
		"v2: another version":    strings.Replace(block(1, 0x11, addresses("192.0.2.7", "10.0.0.1")), "\x21\x11", "\x31\x11", 1),
		"v2: another command":    block(2, 0x11, addresses("192.0.2.7", "10.0.0.1")),
		"v2: datagrams":          block(1, 0x12, addresses("192.0.2.7", "10.0.0.1")),
		"v2: a UNIX socket":      block(1, 0x31, make([]byte, 216)),
		"v2: half the addresses": block(1, 0x21, addresses("192.0.2.7", "10.0.0.1")),
		"v2: too large":          block(1, 0x11, make([]byte, maxProxyBlock+1)),
		"v2: half":               block(1, 0x11, addresses("192.0.2.7", "10.0.0.1"))[:20],
	} {
		r := strings.NewReader(header)
		_, err := readProxyHeader(r)
		require.ErrorIs(t, err, ErrProxyHeader, name)
		require.LessOrEqual(t, len(header)-r.Len(), max(maxProxyLine, 16+maxProxyBlock), "of what was sent")
	}
}

func FuzzProxyHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.7 10.0.0.1 12345 443\r\n"))
	f.Add([]byte(block(1, 0x21, addresses("2001:db8::7", "2001:db8::1"))))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		if source, err := readProxyHeader(r); err == nil && source.IsValid() {
			require.False(t, source.Addr().Is4In6())
		}
	})
}

const balancer = "10.0.0.5"

func proxied() Config {
	return Config{ProxiesFrom: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, MaxPerAddress: 2}
}

// Behind a load balancer, the header distinguishes clients, both for the server and for the limits.
func TestClientsBehindALoadBalancer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, proxied())
		for i := range 6 {
			conn, far := b.connect(balancer)
			go func() { _, _ = far.Write([]byte("PROXY TCP4 " + v4(i/3) + " 10.0.0.1 12345 443\r\nhello")) }()
			require.Equal(t, v4(i/3)+":12345", conn.RemoteAddr().String())
			buffer := make([]byte, 10)
			n, err := conn.Read(buffer)
			require.NoError(t, err)
			require.Equal(t, "hello", string(buffer[:n]))
			require.True(t, i != 5 || conn.Authenticated())
		}
		require.Equal(t, 2, b.closed(reasonAddress), "the third of each address closes the first")
		require.Equal(t, 3, b.all.Len())
	})
}

// The load balancer itself may connect, for its health checks.
func TestHealthChecksOfALoadBalancer(t *testing.T) {
	b := newBed(t, proxied())
	conn, far := b.connect(balancer)
	go func() { _, _ = far.Write([]byte(block(0, 0, nil))) }()
	require.Equal(t, balancer+":1", conn.RemoteAddr().String())
}

// A header is accepted only from load balancers. From other addresses it is treated as data.
func TestAHeaderOfAStrangerIsNotBelieved(t *testing.T) {
	b := newBed(t, proxied())
	conn, far := b.connect("192.0.2.66")
	go func() { _, _ = far.Write([]byte("PROXY TCP4 192.0.2.7 10.0.0.1 12345 443\r\n")) }()
	require.Equal(t, "192.0.2.66:1", conn.RemoteAddr().String())
	buffer := make([]byte, 5)
	_, err := io.ReadFull(conn, buffer)
	require.NoError(t, err)
	require.Equal(t, "PROXY", string(buffer))
}

// If a load balancer sends no header, or half of one, its connection is closed. Other connections are not delayed
// meanwhile.
func TestAMissingHeaderEndsTheConnection(t *testing.T) {
	for _, sent := range []string{"", "PROXY TCP4 192", "GET / HTTP/1.1\r\n\r\n"} {
		synctest.Test(t, func(t *testing.T) {
			b := newBed(t, proxied())
			conn, far := b.connect(balancer)
			go func() { _, _ = far.Write([]byte(sent)) }()
			_, err := conn.Read(make([]byte, 1))
			require.ErrorIs(t, err, ErrProxyHeader)
			require.Equal(t, 1, b.closed(reasonProxyHeader))
			require.NotEmpty(t, conn.RemoteAddr().String())
			_, err = far.Read(make([]byte, 1))
			require.ErrorIs(t, err, io.EOF)
			b.settled()
			time.Sleep(time.Hour) // all timers have run
		})
	}
}
