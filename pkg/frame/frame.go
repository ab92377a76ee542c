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
// The code for each message is generated from the schema, in the files *_gen.go: run `make generate`. What all messages share
// is written by hand: append.go, scan.go and wire.go.
//
// A server decodes strictly: what this version does not know is refused with an *Error that names the field. A client
// decodes leniently: what a newer server adds is passed over. Neither ever panics, and errors never repeat what was in
// the data. The package knows frames, not connections: it does no I/O, and it does not judge values (the ranges and
// lengths of fields), only their types. The one exception is submit.traceparent, which is no part of the command, so that
// nobody behind would judge it: a frame that is handed over has it empty or in W3C form.
package frame

// Error describes what is wrong with one frame of a message.
type Error struct {
	// ID is the frame's id, as far as it was read; 0 if it has none or it was not reached. The answer is sent with this id.
	ID uint64
	// Field is the path of the invalid field in the names of the proto files, for example "submit.body.message.text"; empty
	// if no single known field is the cause.
	Field string
	// Message is text for a person. It is made of fixed text and never repeats content of the frame.
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
