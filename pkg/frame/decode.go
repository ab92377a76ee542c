package frame

import (
	"bytes"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
)

// DecodeClient decodes a message from a client and calls fn with each frame in order; fn may keep the frame. Each frame
// passed to fn has exactly one request. DecodeClient stops at the first invalid frame with an *Error, or at the first
// error of fn, which it returns unchanged. Frames before the invalid one have then been passed to fn. Broken framing, or
// more than protocol.MaxFrames frames, is detected before fn is called. The data is only read, and only Error.Rest refers
// to it afterwards.
func DecodeClient(codec Codec, data []byte, fn func(*clientv1.ClientFrame) error) error {
	if err := checkFraming(codec, data); err != nil {
		return err
	}
	for len(data) > 0 {
		one, rest := split(codec, data)
		frame := &clientv1.ClientFrame{}
		var err *Error
		if codec.isJSON() {
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

// DecodeServer decodes a message from a server and calls fn with each frame in order; fn may keep the frame. Fields and
// messages that this version does not know are ignored: such a frame has a nil Message. It stops at the first frame that
// cannot be decoded with an *Error, or at the first error of fn, which it returns unchanged.
//
// With Proto, Event.BodyBytes contains the received bytes of the body; nil if there is no body. With JSON it contains what
// the server sent in this field.
func DecodeServer(codec Codec, data []byte, fn func(*clientv1.ServerFrame) error) error {
	for len(data) > 0 {
		one, rest := split(codec, data)
		frame := &clientv1.ServerFrame{}
		if codec.isJSON() && len(bytes.TrimSpace(one)) == 0 {
			data = rest
			continue
		}
		var err *Error
		switch {
		case codec.isJSON():
			err = decodeServerJSON(one, frame)
		case one == nil:
			err = &Error{Message: "its length prefix does not fit the message"}
		default:
			err = decodeServerProto(one, frame)
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

func decodeClientJSON(data []byte, frame *clientv1.ClientFrame) *Error {
	s := scanner{data: data, strict: true}
	s.readClientFrame(frame)
	s.end()
	if s.err == nil && frame.GetRequest() == nil {
		s.fail("must hold exactly one request")
	}
	return s.err
}

func decodeServerJSON(data []byte, frame *clientv1.ServerFrame) *Error {
	s := scanner{data: data}
	s.readServerFrame(frame)
	s.end()
	return s.err
}

func decodeClientProto(data []byte, frame *clientv1.ClientFrame) *Error {
	w := wire{}
	if w.checkClientFrame(data) {
		if err := frame.UnmarshalVT(data); err != nil {
			w.fail(notProtobuf)
		} else if frame.GetRequest() == nil {
			w.fail("must hold exactly one request")
		}
	}
	if w.err != nil {
		w.err.ID = w.id
	}
	return w.err
}

func decodeServerProto(data []byte, frame *clientv1.ServerFrame) *Error {
	if err := frame.UnmarshalVT(data); err != nil || !setBodyBytes(frame, data) {
		return &Error{ID: frame.GetId(), Message: notProtobuf}
	}
	return nil
}
