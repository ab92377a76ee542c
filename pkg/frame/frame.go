// Package frame turns frames of the client protocol into the bytes of WebSocket messages and back, for both subprotocols,
// on both sides. A WebSocket message carries one or more frames:
//
//	runnel.v1.proto  binary message; each frame is its length as a varint, then the protobuf message
//	runnel.v1.json   text message; each frame is protobuf JSON on one line
//
// Every appended JSON frame ends with a line feed, including the last one, so that encoded frames can be concatenated as bytes,
// just like length-prefixed frames. When decoding, the last line feed may be missing. Therefore the encoders need not know messages:
// a frame is encoded once and its bytes are sent to many connections.
//
// The code for each message is generated from the schema, in the files *_gen.go: run `make generate`. What all messages share
// is written by hand: append.go, scan.go and wire.go.
//
// A server decodes strictly: a field that this version does not know is refused with an *Error that names the field. A client
// decodes leniently: fields that a newer server adds are ignored. Decoding never panics, and errors never repeat content of
// the data. The package knows frames, not connections: it does no I/O, and it does not judge values (the ranges and
// lengths of fields), only their types. The only exception is submit.traceparent. It is not part of the command, so
// no later code would check it: in a frame that is passed on, it is empty or in W3C form.
package frame

// Error describes what is wrong with one frame of a message.
type Error struct {
	// ID is the frame's id, which the answer must have; 0 if the frame has no id, or if decoding failed before the id.
	ID uint64
	// Field is the path of the invalid field in the names of the proto files, for example "submit.body.message.text"; empty
	// if no single known field is the cause.
	Field string
	// Message is text for people. It is made of fixed text and never repeats content of the frame.
	Message string
	// Rest is the part of the message after the frame. A server that tolerates the error answers it and decodes Rest. It is
	// empty if the framing itself is broken.
	Rest []byte
}

func (e *Error) Error() string {
	if e.Field == "" {
		return "frame: " + e.Message
	}
	return "frame: " + e.Field + " " + e.Message
}
