// Package wire defines the encodings of frames: a codec of the client protocol and the framing of a transport. A message is
// encoded once per encoding and sent to every link that uses it. The package does no I/O.
//
// A new transport adds a file with its framing. It adds its encodings as constants before NumEncodings and as lines of the table below: one for
// each codec, and for JSON a second one with body bytes. What is framed is a message with one or more frames, each of which ends as
// its codec defines (JSON with a line feed), so a framing only marks where messages begin and end.
package wire

import (
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"

	"github.com/runnelhq/runnel/pkg/frame"
)

// Encoding is a codec and a framing.
type Encoding uint8

// The encodings. In encodings with body bytes, JSON events also contain the bytes that their hashes cover.
const (
	WebSocketProto Encoding = iota
	WebSocketJSON
	WebSocketJSONBytes
	NumEncodings
)

var encodings = [NumEncodings]struct {
	name      string // the name that operators see
	codec     frame.Codec
	framing   framing
	bodyBytes Encoding // this encoding with body bytes
}{
	WebSocketProto:     {frame.Proto.Subprotocol(), frame.Proto, webSocket, WebSocketProto},
	WebSocketJSON:      {frame.JSON.Subprotocol(), frame.JSON, webSocket, WebSocketJSONBytes},
	WebSocketJSONBytes: {frame.JSON.Subprotocol(), frame.JSONWithBytes, webSocket, WebSocketJSONBytes},
}

// framing turns a payload into one message of a transport.
type framing struct {
	// room is how many bytes seal needs before the payload.
	room int
	// seal makes a message of a buffer with room free bytes before the payload. The message may begin anywhere in the buffer.
	seal func(buffer []byte, codec frame.Codec) []byte
}

// WebSocket returns the encoding of a WebSocket that uses this codec.
func WebSocket(codec frame.Codec) Encoding {
	if codec == frame.Proto {
		return WebSocketProto
	}
	return WebSocketJSON
}

// String returns the name of the encoding for operators. Encodings that differ only in body bytes have the same name.
func (e Encoding) String() string { return encodings[e].name }

// Codec returns the codec of the encoding.
func (e Encoding) Codec() frame.Codec { return encodings[e].codec }

// WithBodyBytes returns the encoding whose events contain the bytes of their bodies.
func (e Encoding) WithBodyBytes() Encoding { return encodings[e].bodyBytes }

// Message returns one message that contains the frames that fill appends, in the encoding's codec.
func (e Encoding) Message(fill func([]byte) []byte) []byte {
	f := &encodings[e].framing
	return f.seal(fill(make([]byte, f.room, 512)), encodings[e].codec)
}

// Frame makes one message from a frame.
func (e Encoding) Frame(f *clientv1.ServerFrame) []byte {
	return e.Message(func(dst []byte) []byte { return frame.AppendServer(dst, encodings[e].codec, f) })
}
