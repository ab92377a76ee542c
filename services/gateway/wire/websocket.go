package wire

import (
	"encoding/binary"

	"github.com/runnelhq/runnel/pkg/frame"
)

// maxWebSocketHeader is the longest header of an unmasked frame (RFC 6455, section 5.2).
const maxWebSocketHeader = 10

// webSocket writes the header directly before the payload, so that the payload is not copied.
var webSocket = framing{room: maxWebSocketHeader, seal: func(buffer []byte, codec frame.Codec) []byte {
	var head [maxWebSocketHeader]byte
	header := appendWebSocketHeader(head[:0], codec.MessageType(), len(buffer)-maxWebSocketHeader)
	start := maxWebSocketHeader - len(header)
	copy(buffer[start:], header)
	return buffer[start:]
}}

// AppendWebSocketFrame appends one unmasked, final WebSocket frame (RFC 6455, section 5.2). It is used for control frames.
func AppendWebSocketFrame(dst []byte, opcode int, payload []byte) []byte {
	dst = appendWebSocketHeader(dst, opcode, len(payload))
	return append(dst, payload...)
}

func appendWebSocketHeader(dst []byte, opcode, size int) []byte {
	const final = 0x80
	dst = append(dst, final|byte(opcode))
	switch {
	case size < 126:
		return append(dst, byte(size))
	case size <= 0xffff:
		return binary.BigEndian.AppendUint16(append(dst, 126), uint16(size))
	default:
		return binary.BigEndian.AppendUint64(append(dst, 127), uint64(size))
	}
}
