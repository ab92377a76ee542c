package frame

import (
	"bytes"

	"google.golang.org/protobuf/encoding/protowire"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
)

// setBodyBytes sets the body bytes of the events of a frame to their bytes in data, from which the frame was decoded. It
// returns false if an event contains its body twice: such a decoded body was merged from two encodings.
func setBodyBytes(frame *clientv1.ServerFrame, data []byte) bool {
	switch m := frame.GetMessage().(type) {
	case *clientv1.ServerFrame_Event:
		content, ok := only(data, eventField)
		return ok && setBody(m.Event, content)
	case *clientv1.ServerFrame_Page:
		content, ok := only(data, pageField)
		return ok && setBodies(m.Page.GetEvents(), content)
	default:
		return true
	}
}

func setBodies(events []*clientv1.Event, page []byte) bool {
	for len(page) > 0 {
		number, content, rest := nextField(page)
		if rest == nil {
			return false
		}
		page = rest
		if number != pageEventsField {
			continue
		}
		if len(events) == 0 || !setBody(events[0], content) {
			return false
		}
		events = events[1:]
	}
	return true
}

func setBody(event *clientv1.Event, data []byte) bool {
	body, ok := only(data, eventBodyField)
	event.BodyBytes = bytes.Clone(body)
	return ok
}

// only returns the content of a field; nil if the field does not exist. It returns false if the field exists twice.
func only(data []byte, wanted protowire.Number) (content []byte, ok bool) {
	for len(data) > 0 {
		number, value, rest := nextField(data)
		if rest == nil {
			return nil, false
		}
		data = rest
		if number != wanted {
			continue
		}
		if content != nil || value == nil {
			return nil, false
		}
		content = value
	}
	return content, true
}

// nextField reads a field of a message. It returns the number, the content if the field has a length, and the rest of
// data after the field. content is nil for a field without a length; rest is nil if data is not protobuf.
func nextField(data []byte) (number protowire.Number, content, rest []byte) {
	// The fields of an event have a tag of one byte. They are varints or have a length.
	if tag := data[0]; tag >= 1<<3 && tag < 0x80 && tag&7 <= byte(protowire.BytesType) && tag&7 != byte(protowire.Fixed64Type) {
		v, n := protowire.ConsumeVarint(data[1:])
		if n < 0 {
			return 0, nil, nil
		}
		number, rest = protowire.Number(tag>>3), data[1+n:]
		if tag&7 == byte(protowire.VarintType) {
			return number, nil, rest
		}
		if v > uint64(len(rest)) {
			return 0, nil, nil
		}
		return number, rest[:v], rest[v:]
	}
	number, kind, n := protowire.ConsumeTag(data)
	if n < 0 {
		return 0, nil, nil
	}
	data = data[n:]
	if n = protowire.ConsumeFieldValue(number, kind, data); n < 0 {
		return 0, nil, nil
	}
	if kind == protowire.BytesType {
		content, _ = protowire.ConsumeBytes(data)
	}
	return number, content, data[n:]
}
