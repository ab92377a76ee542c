// Package frame turns frames of the client protocol into the bytes of WebSocket messages and back, for both subprotocols,
// on both sides. A WebSocket message carries one or more frames:
//
//	runnel.v1.proto  binary message; each frame is its length as a varint, then the protobuf message
//	runnel.v1.json   text message; each frame is protobuf JSON on one line
//
// Every appended JSON frame ends with a line feed, the last one too, so that encoded frames can be concatenated as bytes,
// just like length-prefixed ones; what is decoded may lack the last one. The encoders therefore know nothing of messages:
// a frame is encoded once and its bytes go to as many connections as want it.
//
// A server decodes strictly: what this version does not know is refused with an *Error that names the field. A client
// decodes leniently: what a newer server adds is passed over. Neither ever panics, and errors never repeat what was in
// the data. The package knows frames, not connections: it does no I/O, and it does not judge values (the ranges and
// lengths of fields), only their types. The one exception is submit.traceparent, which is no part of the command, so that
// nobody behind would judge it: a frame that is handed over has it empty or in W3C form.
package frame

import (
	"bytes"
	"errors"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
)

// MaxFrames is how many frames one WebSocket message from a client may carry.
const MaxFrames = 64

// Codec is one of the two encodings of the protocol. The zero value is Proto.
type Codec uint8

const (
	// Proto is length-prefixed protobuf in binary messages.
	Proto Codec = iota
	// JSON is protobuf JSON, one frame a line, in text messages.
	JSON
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

// Subprotocol is the name of the WebSocket subprotocol that the codec belongs to.
func (c Codec) Subprotocol() string {
	if c == JSON {
		return subprotocolJSON
	}
	return subprotocolProto
}

// MessageType is the opcode of the WebSocket messages that carry the codec's frames: 1 for text, 2 for binary.
func (c Codec) MessageType() int {
	if c == JSON {
		return 1
	}
	return 2
}

// String is "proto" or "json", for settings, logs and metrics.
func (c Codec) String() string {
	if c == JSON {
		return "json"
	}
	return "proto"
}

// MarshalText is String, so that a Codec can be a setting.
func (c Codec) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads what String wrote.
func (c *Codec) UnmarshalText(text []byte) error {
	switch string(text) {
	case "proto":
		*c = Proto
	case "json":
		*c = JSON
	default:
		return errors.New("codec must be proto or json")
	}
	return nil
}

// Error says what is wrong with one frame of a message.
type Error struct {
	// ID is the frame's id, as far as it was read; 0 when it has none or it was not reached. An answer goes there.
	ID uint64
	// Field is the path of the offending field in the names of the proto files, for example
	// "submit.body.message.text"; empty when no single known field is to blame.
	Field string
	// Message is for a person. It is made of fixed text and never repeats what the frame holds.
	Message string
	// Rest is what follows the frame in the message. A server that tolerates the error answers it and decodes Rest.
	// It is empty when the framing itself is broken.
	Rest []byte
}

func (e *Error) Error() string {
	if e.Field == "" {
		return "frame: " + e.Message
	}
	return "frame: " + e.Field + " " + e.Message
}

// DecodeClient decodes a message that a client sent and calls fn with each frame in order; fn may keep the frame. It stops
// at the first frame that is not exactly right with an *Error, or at the first error of fn with that error as it is.
// Frames before it were handed over by then. Broken framing and more than MaxFrames frames are found before fn is called.
// A frame that is handed over has exactly one request. The data is only read, and not kept but by Error.Rest.
func DecodeClient(codec Codec, data []byte, fn func(*clientv1.ClientFrame) error) error {
	if err := checkFraming(codec, data); err != nil {
		return err
	}
	for len(data) > 0 {
		one, rest := split(codec, data)
		frame := &clientv1.ClientFrame{}
		var err *Error
		if codec == JSON {
			err = decodeClientJSON(one, frame)
		} else {
			err = decodeClientProto(one, frame)
		}
		if err == nil {
			err = checkTraceparent(frame)
		}
		if err != nil {
			err.Rest = rest
			return err
		}
		if err := fn(frame); err != nil {
			return err
		}
		data = rest
	}
	return nil
}

// DecodeServer decodes a message that a server sent and calls fn with each frame in order; fn may keep the frame. Fields
// and messages that this version does not know are passed over: such a frame has a nil Message. It stops at the first
// frame that cannot be decoded with an *Error, or at the first error of fn with that error as it is.
func DecodeServer(codec Codec, data []byte, fn func(*clientv1.ServerFrame) error) error {
	for len(data) > 0 {
		one, rest := split(codec, data)
		frame := &clientv1.ServerFrame{}
		switch {
		case codec == JSON && len(bytes.TrimSpace(one)) == 0:
			data = rest
			continue
		case codec == JSON:
			if err := decodeServerJSON(one, frame); err != nil {
				err.Rest = rest
				return err
			}
		case one == nil:
			return &Error{Message: "its length prefix does not fit the message"}
		default:
			if err := frame.UnmarshalVT(one); err != nil {
				return &Error{Message: "is not a protobuf message of this protocol", Rest: rest}
			}
		}
		if err := fn(frame); err != nil {
			return err
		}
		data = rest
	}
	return nil
}
