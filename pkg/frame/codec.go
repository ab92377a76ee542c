package frame

import "errors"

// Codec is one of the encodings of the protocol. The zero value is Proto.
type Codec uint8

const (
	// Proto is length-prefixed protobuf in binary messages.
	Proto Codec = iota
	// JSON is protobuf JSON, one frame per line, in text messages. Events come without the bytes of their bodies.
	JSON
	// JSONWithBytes is JSON in which events also contain Event.body_bytes, for clients that requested them in connect.
	// Only what a server encodes differs from JSON.
	JSONWithBytes

	// NumCodecs is the number of codecs. The value of every codec is below it.
	NumCodecs = iota
)

const (
	subprotocolProto = "runnel.v1.proto"
	subprotocolJSON  = "runnel.v1.json"
)

// Subprotocols lists the names of both WebSocket subprotocols, the server's preferred one first.
func Subprotocols() []string { return []string{subprotocolProto, subprotocolJSON} }

// CodecFor returns the codec of a WebSocket subprotocol, and false for an unknown one.
func CodecFor(subprotocol string) (Codec, bool) {
	switch subprotocol {
	case subprotocolProto:
		return Proto, true
	case subprotocolJSON:
		return JSON, true
	default:
		return 0, false
	}
}

func (c Codec) isJSON() bool { return c == JSON || c == JSONWithBytes }

// WithBytes returns the codec of the same subprotocol whose events contain the bytes of their bodies. For Proto this is
// Proto itself.
func (c Codec) WithBytes() Codec {
	if c == JSON {
		return JSONWithBytes
	}
	return c
}

// Subprotocol returns the name of the WebSocket subprotocol of the codec.
func (c Codec) Subprotocol() string {
	if c.isJSON() {
		return subprotocolJSON
	}
	return subprotocolProto
}

// MessageType returns the opcode of the WebSocket messages of the codec: 1 for text, 2 for binary.
func (c Codec) MessageType() int {
	if c.isJSON() {
		return 1
	}
	return 2
}

// String returns "proto", "json" or "json-with-bytes", for settings, logs and metrics.
func (c Codec) String() string {
	switch c {
	case JSON:
		return "json"
	case JSONWithBytes:
		return "json-with-bytes"
	default:
		return "proto"
	}
}

// MarshalText returns String, so that a Codec can be a setting.
func (c Codec) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText parses the result of String.
func (c *Codec) UnmarshalText(text []byte) error {
	for codec := range Codec(NumCodecs) {
		if string(text) == codec.String() {
			*c = codec
			return nil
		}
	}
	return errors.New("codec must be proto, json or json-with-bytes")
}
