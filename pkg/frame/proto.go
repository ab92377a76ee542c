package frame

import (
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
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

// traceparentField is the number of traceparent in a ServerFrame.
const traceparentField = 18

// appendProtoField appends the ServerFrame with that id, that field of its oneof and that traceparent, without making the
// ServerFrame.
func appendProtoField(dst []byte, id uint64, field protowire.Number, message sized, traceparent string) []byte {
	size := message.SizeVT()
	length := protowire.SizeTag(field) + protowire.SizeBytes(size)
	if id != 0 {
		length += protowire.SizeTag(1) + protowire.SizeVarint(id)
	}
	if traceparent != "" {
		length += protowire.SizeTag(traceparentField) + protowire.SizeBytes(len(traceparent))
	}
	dst = protowire.AppendVarint(dst, uint64(length))
	if id != 0 {
		dst = protowire.AppendVarint(protowire.AppendTag(dst, 1, protowire.VarintType), id)
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

// decodeClientProto checks the wire form against the schema and then decodes it: the generated decoder alone would keep
// unknown fields, take text that is not UTF-8, cut integers and let the last of two requests win.
func decodeClientProto(data []byte, frame *clientv1.ClientFrame) *Error {
	w := wire{}
	if w.message(frame.ProtoReflect().Descriptor(), data) {
		if err := frame.UnmarshalVT(data); err != nil {
			w.fail("is not a protobuf message of this protocol")
		} else if frame.GetRequest() == nil {
			w.fail("must hold exactly one request")
		}
	}
	if w.err != nil {
		w.err.ID = w.id
	}
	return w.err
}

// wire walks the wire form of a message along its schema.
type wire struct {
	path path
	id   uint64
	err  *Error
}

func (w *wire) fail(message string) bool {
	if w.err == nil {
		w.err = &Error{Field: w.path.String(), Message: message}
	}
	return false
}

// message checks one message; every field may come once, unless it is a list.
func (w *wire) message(schema protoreflect.MessageDescriptor, data []byte) bool {
	var seen uint64
	var oneof bool
	var places [64]int16
	keys := map[string]struct{}(nil)
	for len(data) > 0 {
		number, wireType, n := protowire.ConsumeTag(data)
		if n < 0 {
			return w.fail("is not a protobuf message of this protocol")
		}
		data = data[n:]
		field := schema.Fields().ByNumber(number)
		if field == nil || number >= 64 {
			return w.fail("holds a field that this version does not know")
		}
		n = protowire.ConsumeFieldValue(number, wireType, data)
		if n < 0 {
			return w.fail("is not a protobuf message of this protocol")
		}
		value := data[:n]
		data = data[n:]
		if !w.path.push(string(field.Name())) {
			return w.fail("is nested too deep")
		}
		switch {
		case field.IsMap():
			key := mapKey(value)
			if _, twice := keys[key]; twice {
				return w.fail("has a key twice")
			}
			if keys == nil {
				keys = map[string]struct{}{}
			}
			keys[key] = struct{}{}
		case field.IsList():
			w.path.at(int(places[number]))
			places[number]++
		case seen&(1<<number) != 0:
			return w.fail("is given twice")
		case field.ContainingOneof() != nil && oneof:
			return w.fail("is a second choice where only one may be made")
		}
		seen |= 1 << number
		oneof = oneof || field.ContainingOneof() != nil
		if !w.value(field, wireType, value) {
			return false
		}
		w.path.pop()
	}
	return true
}

// value checks the value of one field.
func (w *wire) value(field protoreflect.FieldDescriptor, wireType protowire.Type, value []byte) bool {
	switch field.Kind() {
	case protoreflect.MessageKind, protoreflect.StringKind:
		if wireType != protowire.BytesType {
			return w.fail("has the wrong type")
		}
		content, _ := protowire.ConsumeBytes(value)
		if field.Kind() == protoreflect.MessageKind {
			return w.message(field.Message(), content)
		}
		if !utf8.Valid(content) {
			return w.fail("is not valid UTF-8")
		}
		return true
	case protoreflect.Uint64Kind, protoreflect.Uint32Kind, protoreflect.BoolKind, protoreflect.EnumKind:
		if wireType != protowire.VarintType {
			return w.fail("has the wrong type")
		}
		v, _ := protowire.ConsumeVarint(value)
		switch {
		case field.Kind() == protoreflect.Uint64Kind && w.path.depth == 1:
			// The only integer of the frame itself is its id.
			w.id = v
		case field.Kind() == protoreflect.Uint32Kind && v > math.MaxUint32:
			return w.fail("must be at most 4294967295")
		case field.Kind() == protoreflect.BoolKind && v > 1:
			return w.fail("has the wrong type")
		case field.Kind() == protoreflect.EnumKind && (v > math.MaxInt32 || field.Enum().Values().ByNumber(protoreflect.EnumNumber(v)) == nil):
			return w.fail("is a value that this version does not know")
		}
		return true
	default:
		// No field of a client's frame is of another kind; one that is added must be added here.
		return w.fail("is of a kind that this version cannot check")
	}
}

// mapKey is the key of the wire form of a map entry; empty when it has none. The entry itself is checked as a message.
func mapKey(value []byte) string {
	entry, n := protowire.ConsumeBytes(value)
	if n < 0 {
		return ""
	}
	for len(entry) > 0 {
		number, wireType, n := protowire.ConsumeTag(entry)
		if n < 0 {
			return ""
		}
		entry = entry[n:]
		if n = protowire.ConsumeFieldValue(number, wireType, entry); n < 0 {
			return ""
		}
		if number == 1 && wireType == protowire.BytesType {
			key, _ := protowire.ConsumeBytes(entry)
			return string(key)
		}
		entry = entry[n:]
	}
	return ""
}
