package attack_test

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"time"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/errcode"
)

// perFrame sockets send each bad frame.
const perFrame = 5

// badFrame is what a client sends of a message, and the code that it hears.
type badFrame struct {
	sent string
	code errcode.CloseCode
}

// announce is the header of a frame that announces so many bytes.
func announce(opcode byte, bytes uint64) string {
	return string(binary.BigEndian.AppendUint64([]byte{opcode, 0xff}, bytes)) + "\x00\x00\x00\x00"
}

var (
	tooLarge = []badFrame{
		{announce(0x81, 1<<63), errcode.CloseTooLarge},
		{announce(0x81, 1<<62), errcode.CloseTooLarge},
		{announce(0x81, 1<<30), errcode.CloseTooLarge},
		{"\x01\x81\x00\x00\x00\x00{" + announce(0x80, 1<<63-1), errcode.CloseTooLarge},
		{"\x01\x80\x00\x00\x00\x00" + strings.Repeat("\x00\x80\x00\x00\x00\x00", 60_000), errcode.CloseTooLarge},
	}
	broken = []badFrame{
		{"\x83\x80\x00\x00\x00\x00", errcode.CloseProtocol},
		{"\x8b\x80\x00\x00\x00\x00", errcode.CloseProtocol},
		{"\xc1\x80\x00\x00\x00\x00", errcode.CloseProtocol},
		{"\x81\x00", errcode.CloseProtocol},
		{"\x80\x80\x00\x00\x00\x00", errcode.CloseProtocol},
		{"\x09\x80\x00\x00\x00\x00", errcode.CloseProtocol},
		{announce(0x89, 1<<63), errcode.CloseProtocol},
		{"\x82\x80\x00\x00\x00\x00", errcode.CloseProtocol},
	}
	control = []badFrame{
		{strings.Repeat("\x8a\x80\x00\x00\x00\x00", 10_000), errcode.CloseFlood},
		{strings.Repeat("\x89\x80\x00\x00\x00\x00", 10_000), errcode.CloseFlood},
		{"\x01\x80\x00\x00\x00\x00" + strings.Repeat("\x8a\x80\x00\x00\x00\x00", 8_000), errcode.CloseFlood},
	}
)

var frames = []attack{
	{
		name: "frames that announce too much", tries: "frames of 2^63, 2^62 and 2^30 bytes without a payload; fragments of 2^63 in all; empty fragments without end",
		seen: "4502 by the header alone", bound: bound{sockets: len(tooLarge) * perFrame, megabytes: 64}, run: func(s *target) { s.sendBad(tooLarge, (*target).stranger) },
	},
	{
		name: "frames that announce too much, of a user", tries: "the same after authentication", seen: "4502 by the header alone",
		bound: bound{sockets: len(tooLarge) * perFrame, megabytes: 64, calls: 2 * len(tooLarge) * perFrame}, run: func(s *target) { s.sendBad(tooLarge, (*target).member) },
	},
	{
		name: "frames that break the protocol", tries: "unknown opcodes, reserved bits, no mask, fragmented control frames, the wrong kind of message", seen: "4500, and no close frame of another kind",
		bound: bound{sockets: len(broken) * perFrame, megabytes: 64}, run: func(s *target) { s.sendBad(broken, (*target).stranger) },
	},
	{
		name: "floods of control frames", tries: "10,000 pongs or pings at once, between messages and between fragments", seen: "4503 above the frame rate",
		bound: bound{sockets: len(control) * perFrame, megabytes: 64, calls: 2 * len(control) * perFrame}, run: func(s *target) { s.sendBad(control, (*target).member) },
	},
}

// stranger returns the socket of a WebSocket that is not authenticated, and a reader of what the server sends.
func (s *target) stranger() (net.Conn, *bufio.Reader) {
	s.Helper()
	conn := s.dial("gateway")
	_, err := conn.Write([]byte(upgrade + "\r\n"))
	require.NoError(s, err)
	replies := bufio.NewReader(conn)
	for {
		line, err := replies.ReadString('\n')
		require.NoError(s, err)
		if line == "\r\n" {
			return conn, replies
		}
	}
}

// member is stranger for a user.
func (s *target) member() (net.Conn, *bufio.Reader) {
	s.Helper()
	c := s.connect("eve")
	return c.ws.NetConn(), bufio.NewReader(c.ws.NetConn())
}

// sendBad sends frames on sockets of their own, and checks the codes that close them.
func (s *target) sendBad(frames []badFrame, open func(*target) (net.Conn, *bufio.Reader)) {
	s.Helper()
	var conns []net.Conn
	for _, bad := range frames {
		for range perFrame {
			conn, replies := open(s)
			conns = append(conns, conn)
			go func() { _, _ = conn.Write([]byte(bad.sent)) }()
			require.Equal(s, bad.code, closing(s, conn, replies), "%.40q", bad.sent)
		}
	}
	s.during()
	for _, conn := range conns {
		_ = conn.Close()
	}
}

// closing reads until the server closes the WebSocket, and returns the code.
func closing(s *target, conn net.Conn, replies *bufio.Reader) errcode.CloseCode {
	s.Helper()
	require.NoError(s, conn.SetReadDeadline(time.Now().Add(patience)))
	for {
		var head [2]byte
		_, err := io.ReadFull(replies, head[:])
		require.NoError(s, err, "the server closes without a code")
		size := int(head[1])
		if size == 126 {
			var long [2]byte
			_, err := io.ReadFull(replies, long[:])
			require.NoError(s, err)
			size = int(binary.BigEndian.Uint16(long[:]))
		}
		payload := make([]byte, size)
		_, err = io.ReadFull(replies, payload)
		require.NoError(s, err)
		if head[0]&0xf == websocket.CloseMessage {
			return errcode.CloseCode(binary.BigEndian.Uint16(payload))
		}
	}
}
