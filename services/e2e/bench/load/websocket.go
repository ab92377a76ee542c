package load

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// The parts of RFC 6455 that a client of Runnel's gateway needs: the client masks its frames; the server neither masks
// nor fragments.
const (
	opText  = 0x1
	opClose = 0x8
	opPing  = 0x9
	opPong  = 0xa

	final   = 0x80
	masked  = 0x80
	lenBits = 0x7f
)

// appendMasked appends one final frame, masked with key.
func appendMasked(dst []byte, opcode byte, key [4]byte, payload []byte) []byte {
	dst = append(dst, final|opcode)
	switch n := len(payload); {
	case n < 126:
		dst = append(dst, masked|byte(n))
	case n <= 0xffff:
		dst = binary.BigEndian.AppendUint16(append(dst, masked|126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, masked|127), uint64(n))
	}
	dst = append(dst, key[:]...)
	begin := len(dst)
	dst = append(dst, payload...)
	word := uint64(binary.LittleEndian.Uint32(key[:]))
	word |= word << 32
	rest := dst[begin:]
	for len(rest) >= 8 {
		binary.LittleEndian.PutUint64(rest, binary.LittleEndian.Uint64(rest)^word)
		rest = rest[8:]
	}
	for i := range rest {
		rest[i] ^= key[i&3]
	}
	return dst
}

var errFraming = errors.New("the server sent a WebSocket frame that is masked, fragmented or too large")

// nextFrame removes the first frame from data. It returns whole = false if the frame is incomplete.
func nextFrame(data []byte) (opcode byte, payload, rest []byte, whole bool, err error) {
	if len(data) < 2 {
		return 0, nil, data, false, nil
	}
	if data[0]&final == 0 || data[1]&masked != 0 {
		return 0, nil, data, false, errFraming
	}
	size, head := uint64(data[1]&lenBits), 2
	switch size {
	case 126:
		if len(data) < 4 {
			return 0, nil, data, false, nil
		}
		size, head = uint64(binary.BigEndian.Uint16(data[2:])), 4
	case 127:
		if len(data) < 10 {
			return 0, nil, data, false, nil
		}
		size, head = binary.BigEndian.Uint64(data[2:]), 10
	}
	const largest = 64 << 20
	if size > largest {
		return 0, nil, data, false, errFraming
	}
	end := head + int(size)
	if len(data) < end {
		return 0, nil, data, false, nil
	}
	return data[0] & 0xf, data[head:end], data[end:], true, nil
}

// upgrade returns the request that opens a WebSocket at addr. The key need not be random, because no cache is between
// client and server.
func upgrade(addr string) []byte {
	return []byte("GET /v1/ws HTTP/1.1\r\nHost: " + addr + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: runnel.v1.json\r\n\r\n")
}

// errUnavailable is the error of a handshake with a gateway that is full or is being stopped.
var errUnavailable = errors.New("the gateway takes no connections now")

// upgraded removes the answer to an upgrade from data. It returns whole = false if the answer is incomplete.
func upgraded(data []byte) (rest []byte, whole bool, err error) {
	head, rest, found := bytes.Cut(data, []byte("\r\n\r\n"))
	if !found {
		if len(data) > 8<<10 {
			return nil, false, errors.New("the answer to the WebSocket handshake has no end")
		}
		return data, false, nil
	}
	status, _, _ := bytes.Cut(head, []byte("\r\n"))
	if bytes.HasPrefix(status, []byte("HTTP/1.1 503 ")) {
		return nil, false, fmt.Errorf("%w: %.200s", errUnavailable, rest)
	}
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 101 ")) {
		return nil, false, fmt.Errorf("the WebSocket handshake was refused: %s: %.200s", status, rest)
	}
	return rest, true, nil
}
