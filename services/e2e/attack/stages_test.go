package attack_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/services/e2e/devkeys"
	"github.com/runnelhq/runnel/services/gateway"
)

// stage is how far a client goes before it stops, with its socket open.
type stage struct {
	name     string
	secured  bool   // after a TLS handshake
	upgraded bool   // after the answer to a WebSocket handshake
	sent     string // and this
}

// perStage sockets stop at each stage.
const perStage = 5

const httpHead = " HTTP/1.1\r\nHost: localhost\r\n"

// upgrade is a WebSocket handshake.
var upgrade = "GET " + gateway.Path + httpHead + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: " + frame.JSON.Subprotocol() + "\r\n"

// web are the stages of HTTP. pages are requests with an answer.
func web(page string) []stage {
	return []stage{
		{name: "TCP"},
		{name: "half a request line", sent: "GET /"},
		{name: "half the headers", sent: "GET " + page + httpHead + "X: "},
		{name: "half a body", sent: "POST " + page + httpHead + "Content-Length: 1000\r\n\r\n{"},
		{name: "half a chunk", sent: "POST " + page + httpHead + "Transfer-Encoding: chunked\r\n\r\nff\r\n{"},
		{name: "a body for no page", sent: "POST /nothing" + httpHead + "Content-Length: 100000\r\n\r\n{"},
		{name: "a body that is expected", sent: "PUT " + page + httpHead + "Expect: 100-continue\r\nContent-Length: 1000\r\n\r\n"},
		{name: "an idle connection", sent: "GET /livez" + httpHead + "\r\n"},
		{name: "unread answers", sent: strings.Repeat("GET "+page+httpHead+"\r\n", 2000)},
	}
}

// preface begins each connection of HTTP/2.
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// half returns the first bytes of a TLS handshake.
func half() string {
	near, far := net.Pipe()
	go func() {
		_ = tls.Client(near, &tls.Config{ServerName: "localhost", MinVersion: tls.VersionTLS12}).Handshake()
	}()
	buffer := make([]byte, 40)
	_, _ = io.ReadFull(far, buffer)
	_, _ = far.Close(), near.Close()
	return string(buffer)
}

var (
	clients = append(web("/chat.js"),
		stage{name: "half a sign-in", sent: "POST /dev/token" + httpHead + "Content-Length: 100\r\n\r\n{"},
		stage{name: "half an upgrade", sent: upgrade},
		stage{name: "an upgrade with a body", sent: upgrade + "Content-Length: 100\r\n\r\n"},
		stage{name: "an upgrade", upgraded: true},
		stage{name: "half a frame's header", upgraded: true, sent: "\x81\xfe"},
		stage{name: "half a frame", upgraded: true, sent: "\x81\xfe\x10\x00\x00\x00\x00\x00{"},
		stage{name: "half a message", upgraded: true, sent: "\x01\x81\x00\x00\x00\x00{"},
		stage{name: "pings", upgraded: true, sent: strings.Repeat("\x89\x80\x00\x00\x00\x00", 20)},
		stage{name: "half a close", upgraded: true, sent: "\x88\x82\x00\x00\x00\x00\x03"},
	)
	operators = web("/metrics")
	services  = []stage{
		{name: "TCP"},
		{name: "half a preface", sent: preface[:10]},
		{name: "a preface", sent: preface},
		{name: "HTTP/1.1", sent: "GET /" + httpHead},
		{name: "half a setting", sent: preface + "\x00\x00\x0c\x04\x00"},
	}
)

// over TLS, a client may also stop before and after its handshake.
func over(stages []stage) []stage {
	all := []stage{{name: "TCP, with TLS"}, {name: "half a TLS handshake", sent: half()}, {name: "no TLS", sent: "GET /" + httpHead + "\r\n"}}
	for _, s := range stages {
		s.secured, s.name = true, s.name+", with TLS"
		all = append(all, s)
	}
	return all
}

var stages = []attack{
	{
		name: "stop at each stage of the gateway", tries: names(clients), seen: "the socket is closed in time", bound: stop(len(clients)),
		run: func(s *target) { s.stop("gateway", clients) },
	},
	{
		name: "stop at each stage of the gateway with TLS", tries: names(over(clients)), seen: "the socket is closed in time", bound: stop(len(clients) + 3),
		settings: secured, run: func(s *target) { s.stop("gateway", over(clients)) },
	},
	{
		name: "stop at each stage of the admin port", tries: names(operators), seen: "the socket is closed in time", bound: stop(len(operators)),
		run: func(s *target) { s.stop("admin", operators) },
	},
	{
		name: "stop at each stage of gRPC", tries: names(services), seen: "the socket is closed in time", bound: stop(len(services)),
		run: func(s *target) { s.stop("rpc", services) },
	},
	{
		name: "stop at each stage of gRPC with TLS", tries: names(over(services)), seen: "the socket is closed in time, with or without a certificate", bound: stop(len(services) + 3),
		settings: secured, run: func(s *target) { s.stop("rpc", over(services)) },
	},
	{
		name: "requests without end", tries: "one request for a page after the other on each socket, never a token", seen: "the socket is closed after the time to authenticate",
		bound: stop(1), run: dawdle,
	},
}

// dawdle keeps sockets busy with one request after the other, until the server closes them.
func dawdle(s *target) {
	s.Helper()
	var clients sync.WaitGroup
	for range perStage {
		conn := s.dial("gateway")
		clients.Go(func() {
			buffer := make([]byte, 64<<10)
			for {
				if _, err := conn.Write([]byte("GET /" + httpHead + "\r\n")); err != nil {
					return
				}
				if _, err := conn.Read(buffer); err != nil {
					return
				}
			}
		})
	}
	s.during()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		clients.Wait()
	}()
	select {
	case <-ended:
	case <-time.After(patience):
		require.FailNow(s, "somebody who only asks for pages may stay connected")
	}
}

func stop(stages int) bound {
	return bound{sockets: perStage * stages, megabytes: 64, lines: 2}
}

func names(stages []stage) string {
	all := make([]string, 0, len(stages))
	for _, s := range stages {
		all = append(all, s.name)
	}
	return strings.Join(all, "; ")
}

// stop begins at every stage, and waits until the server has closed all sockets although nobody reads from them.
func (s *target) stop(listener string, stages []stage) {
	s.Helper()
	kept := s.sockets(listener)
	for _, st := range stages {
		for range perStage {
			s.begin(listener, st)
		}
	}
	s.during()
	require.Eventually(s, func() bool { return s.sockets(listener) == kept }, patience, 10*time.Millisecond, "somebody may stay connected")
}

// begin goes to a stage and stops there. A server that is faster and has closed the socket is right as well.
func (s *target) begin(listener string, st stage) net.Conn {
	s.Helper()
	conn := s.dial(listener)
	tcp, _ := conn.(*net.TCPConn)
	require.NoError(s, tcp.SetReadBuffer(1)) // answers that are not read fill it at once
	if st.secured {
		trust := s.trust.Clone()
		if listener == "rpc" {
			certificate, err := tls.LoadX509KeyPair(s.ring.Files("gateway").CertFile, s.ring.Files("gateway").KeyFile)
			require.NoError(s, err)
			trust = &tls.Config{Certificates: []tls.Certificate{certificate}, InsecureSkipVerify: true, NextProtos: []string{"h2"}}
		}
		connected := tls.Client(conn, trust)
		if connected.HandshakeContext(s.Context()) != nil {
			return conn
		}
		conn = connected
	}
	sent := st.sent
	if st.upgraded {
		_, err := conn.Write([]byte(upgrade + "\r\n"))
		require.NoError(s, err)
		for replies := bufio.NewReader(conn); ; {
			line, err := replies.ReadString('\n')
			if err != nil || line == "\r\n" {
				break
			}
		}
	}
	_ = conn.SetWriteDeadline(time.Now().Add(requestTimeout / 4)) // what is not read on the other side need not be written
	_, _ = conn.Write([]byte(sent))
	return conn
}

// The stages are those of every port that the process listens on.
func TestEveryListenerIsAttacked(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("reads /proc")
	}
	s := start(t, attack{})
	want := map[string]bool{}
	for _, listener := range []string{"gateway", "rpc", "admin"} {
		_, port, err := net.SplitHostPort(s.address(listener))
		require.NoError(t, err)
		want[port] = true
	}
	require.Equal(t, want, listening(t))
}

// listening are the ports that this process listens on.
func listening(t *testing.T) map[string]bool {
	t.Helper()
	mine := map[string]bool{}
	descriptors, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	for _, d := range descriptors {
		if target, err := os.Readlink(filepath.Join("/proc/self/fd", d.Name())); err == nil {
			if inode, ok := strings.CutPrefix(target, "socket:["); ok {
				mine[strings.TrimSuffix(inode, "]")] = true
			}
		}
	}
	ports := map[string]bool{}
	for _, table := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		data, err := os.ReadFile(table)
		if err != nil {
			continue // no IPv6
		}
		for line := range bytes.Lines(data) {
			const listens = "0A"
			fields := strings.Fields(string(line))
			if len(fields) < 10 || fields[3] != listens || !mine[fields[9]] {
				continue
			}
			_, hex, _ := strings.Cut(fields[1], ":")
			port, err := strconv.ParseUint(hex, 16, 16)
			require.NoError(t, err)
			ports[strconv.FormatUint(port, 10)] = true
		}
	}
	return ports
}

// NATS, as operators configure it, closes clients that stop as well.
func TestNATSClosesClientsThatStop(t *testing.T) {
	keys, err := devkeys.Make(t.TempDir(), []string{"127.0.0.1"}, time.Hour)
	require.NoError(t, err)
	ns := securedNATS(t, keys, func(options *server.Options) {
		options.TLSTimeout, options.AuthTimeout = 0.5, 0.5 // the file has 5 s and the default of 2 s
	})
	require.True(t, ns.ReadyForConnections(patience))
	for name, sent := range map[string]string{"TCP": "", "half a handshake": half(), "no TLS": "CONNECT {\"verbose\"", "TLS": "tls"} {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", ns.Addr().String())
		require.NoError(t, err, name)
		_, err = bufio.NewReaderSize(conn, 16).ReadString('\n') // INFO
		_ = err
		if sent == "tls" {
			_ = tls.Client(conn, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(t.Context())
		} else {
			_, err = conn.Write([]byte(sent))
			require.NoError(t, err, name)
		}
	}
	require.Eventually(t, func() bool { return ns.NumClients() == 0 }, patience, 10*time.Millisecond)
}

// securedNATS runs a server with the file of the operators, and with changes to it, if change is not nil.
func securedNATS(t *testing.T, keys *devkeys.Ring, change func(options *server.Options)) *server.Server {
	t.Helper()
	files := keys.Files(devkeys.NATS)
	users, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(files.CertFile)), "nats.env"))
	require.NoError(t, err)
	for _, variable := range append(strings.Fields(string(users)), "NAME=n", "STORE="+t.TempDir(), "CLIENT=127.0.0.1:-1", "MONITOR=127.0.0.1:-1",
		"TLS_CERT="+files.CertFile, "TLS_KEY="+files.KeyFile, "TLS_CA="+files.CAFile) {
		name, value, _ := strings.Cut(variable, "=")
		t.Setenv(name, value)
	}
	options, err := server.ProcessConfigFile("../../../deploy/nats/secured.conf")
	require.NoError(t, err)
	require.Less(t, options.MaxConn, 65536)
	options.NoSigs, options.NoLog = true, true
	if change != nil {
		change(options)
	}
	ns, err := server.NewServer(options)
	require.NoError(t, err)
	ns.Start()
	t.Cleanup(func() {
		ns.Shutdown()
		ns.WaitForShutdown()
	})
	return ns
}
