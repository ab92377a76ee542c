package frame

import "errors"

// Codec is one of the encodings of the protocol. The zero value is Proto.
type Codec uint8

const (
	// Proto is length-prefixed protobuf in binary messages.
	Proto Codec = iota
	// JSON is protobuf JSON, one frame a line, in text messages. Events come without the bytes of their bodies.
	JSON
	// JSONWithBytes is JSON in which events come with Event.body_bytes, for clients that asked for them in connect. It
	// differs from JSON only in what a server encodes.
	JSONWithBytes

	// NumCodecs is the number of codecs. All are below it.
	NumCodecs = iota
)

const (
	subprotocolProto = "runnel.v1.proto"
	subprotocolJSON  = "runnel.v1.json"
)

// Subprotocols lists the names of both WebSocket subprotocols, the one that a server prefers first.
func Subprotocols() []string { return []string{subprotocolProto, subprotocolJSON} }

// CodecFor gives the codec of a WebSocket subprotocol, and false for one that is not ours.
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

// WithBytes is the codec of the same subprotocol whose events come with the bytes of their bodies. That is Proto itself.
func (c Codec) WithBytes() Codec {
	if c == JSON {
		return JSONWithBytes
	}
	return c
}

// Subprotocol is the name of the WebSocket subprotocol that the codec belongs to.
func (c Codec) Subprotocol() string {
	if c.isJSON() {
		return subprotocolJSON
	}
	return subprotocolProto
}

// MessageType is the opcode of the WebSocket messages that carry the codec's frames: 1 for text, 2 for binary.
func (c Codec) MessageType() int {
	if c.isJSON() {
		return 1
	}
	return 2
}

// String is "proto", "json" or "json-with-bytes", for settings, logs and metrics.
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

// MarshalText is String, so that a Codec can be a setting.
func (c Codec) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads what String wrote.
func (c *Codec) UnmarshalText(text []byte) error {
	for codec := range Codec(NumCodecs) {
		if string(text) == codec.String() {
			*c = codec
			return nil
		}
	}
	return errors.New("codec must be proto, json or json-with-bytes")
}
