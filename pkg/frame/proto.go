package frame

import (
	"google.golang.org/protobuf/encoding/protowire"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// Numbers of fields that are written or found without the message around them. A test compares them with the schema.
const (
	// Of ServerFrame.
	idField          protowire.Number = 1
	outcomeField     protowire.Number = 5
	pageField        protowire.Number = 6
	eventField       protowire.Number = 9
	receiptField     protowire.Number = 10
	traceparentField protowire.Number = 18
	// Of Page.
	pageEventsField protowire.Number = 1
	// Of Event.
	eventBodyField protowire.Number = 7
)

// sized is what vtprotobuf generates: encoding into the end of a buffer whose size was asked for before.
type sized interface {
	SizeVT() int
	MarshalToSizedBufferVT(buf []byte) (int, error)
}

func appendProto(dst []byte, message sized) []byte {
	size := message.SizeVT()
	dst = protowire.AppendVarint(dst, uint64(size))
	return appendSized(dst, message, size)
}

// appendProtoField appends the ServerFrame with that id, that field of its oneof and that traceparent, without making the
// ServerFrame.
func appendProtoField(dst []byte, id uint64, field protowire.Number, message sized, traceparent string) []byte {
	size := message.SizeVT()
	length := protowire.SizeTag(field) + protowire.SizeBytes(size)
	if id != 0 {
		length += protowire.SizeTag(idField) + protowire.SizeVarint(id)
	}
	if traceparent != "" {
		length += protowire.SizeTag(traceparentField) + protowire.SizeBytes(len(traceparent))
	}
	dst = protowire.AppendVarint(dst, uint64(length))
	if id != 0 {
		dst = protowire.AppendVarint(protowire.AppendTag(dst, idField, protowire.VarintType), id)
	}
	dst = protowire.AppendVarint(protowire.AppendTag(dst, field, protowire.BytesType), uint64(size))
	dst = appendSized(dst, message, size)
	if traceparent != "" {
		dst = protowire.AppendString(protowire.AppendTag(dst, traceparentField, protowire.BytesType), traceparent)
	}
	return dst
}

func appendSized(dst []byte, message sized, size int) []byte {
	start := len(dst)
	if cap(dst)-start < size {
		dst = append(dst, make([]byte, size)...)
	}
	dst = dst[:start+size]
	// It fails only for messages that vtprotobuf did not generate; ours are all its own.
	_, _ = message.MarshalToSizedBufferVT(dst[start:])
	return dst
}

// storedPage encodes clientv1.Page with events as they are stored. rest is the page without events.
type storedPage struct {
	events []*conversationv1.Event
	rest   *clientv1.Page
}

// SizeVT is the size of the encoded page.
func (p *storedPage) SizeVT() int {
	size := p.rest.SizeVT()
	for _, event := range p.events {
		size += protowire.SizeTag(pageEventsField) + protowire.SizeBytes(event.SizeVT())
	}
	return size
}

// MarshalToSizedBufferVT writes the page into buf, which is as long as the page. The events are first, as their number is
// the lowest.
func (p *storedPage) MarshalToSizedBufferVT(buf []byte) (int, error) {
	dst := buf[:0]
	for _, event := range p.events {
		dst = protowire.AppendTag(dst, pageEventsField, protowire.BytesType)
		dst = appendProto(dst, event)
	}
	n, err := p.rest.MarshalToSizedBufferVT(buf[len(dst):])
	return len(dst) + n, err
}
