package frame

import (
	"bytes"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/runnelhq/runnel/pkg/protocol"
)

func errTooMany() *Error {
	return &Error{Message: fmt.Sprintf("the message carries more than %d frames", protocol.MaxFrames)}
}

// checkFraming counts the frames of a client's message and, for Proto, checks that the lengths add up.
func checkFraming(codec Codec, data []byte) *Error {
	if len(data) == 0 {
		return &Error{Message: "the message carries no frame"}
	}
	if codec.isJSON() {
		lines := bytes.Count(data, []byte{'\n'})
		if data[len(data)-1] != '\n' {
			lines++
		}
		if lines > protocol.MaxFrames {
			return errTooMany()
		}
		return nil
	}
	for count := 1; len(data) > 0; count++ {
		one, rest := split(codec, data)
		switch {
		case one == nil:
			return &Error{Message: "its length prefix does not fit the message"}
		case count > protocol.MaxFrames:
			return errTooMany()
		}
		data = rest
	}
	return nil
}

// split removes the first frame from a message, without its framing. For Proto the frame is nil if the framing is broken,
// and never nil otherwise.
func split(codec Codec, data []byte) (one, rest []byte) {
	if codec.isJSON() {
		one, rest, _ = bytes.Cut(data, []byte{'\n'})
		return one, rest
	}
	length, n := protowire.ConsumeVarint(data)
	if n < 0 || length > uint64(len(data)-n) {
		return nil, nil
	}
	return data[n : n+int(length)], data[n+int(length):]
}
