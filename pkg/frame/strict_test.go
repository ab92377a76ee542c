package frame_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/frame/internal/frametest"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
)

// place writes a field of a frame in one encoding, together with the messages around it.
type place interface {
	// value is a valid value of the field.
	value(field protoreflect.FieldDescriptor) string
	// field is a field with its value.
	field(field protoreflect.FieldDescriptor, value string) string
	// fields is a value that contains fields.
	fields(fields ...string) string
	// wrong returns a value that is invalid for every field type. unknown returns a field that no message has.
	wrong(field protoreflect.FieldDescriptor) string
	unknown() string
	frame(fields string) []byte
	codec() frame.Codec
}

// Input that no client may send is refused in every message of the schema.
func TestEveryFieldOfAClientIsCheckedStrictly(t *testing.T) {
	for _, in := range []place{inJSON{}, inProto{}} {
		frametest.EveryField(&clientv1.ClientFrame{}, func(name string, way frametest.Way) {
			t.Run(fmt.Sprint(in.codec(), "/", name), func(t *testing.T) {
				field := way[len(way)-1]
				refused := func(path, message string, fields ...string) {
					t.Helper()
					_, err := decodeClient(in.codec(), wrap(in, way[:len(way)-1], fields...))
					requireRefused(t, err, path, message)
				}
				one := in.field(field, in.value(field))
				refused(pathOf(way, true), "", in.wrong(field))
				if !field.IsList() && !field.IsMap() {
					refused(pathOf(way, false), "given twice", one, one)
				}
				if field.Message() != nil && !field.IsMap() {
					refused(pathOf(way, true), "does not know", in.field(field, in.fields(in.unknown())))
				}
				oneof := field.ContainingOneof()
				for i := 0; oneof != nil && i < oneof.Fields().Len(); i++ {
					if other := oneof.Fields().Get(i); other != field {
						path := pathOf(append(way[:len(way)-1:len(way)-1], other), false)
						refused(path, "second choice", one, in.field(other, in.value(other)))
					}
				}
			})
		})
	}
}

// wrap puts fields into the messages around them.
func wrap(in place, way frametest.Way, fields ...string) []byte {
	for _, field := range slices.Backward(way) {
		fields = []string{in.field(field, in.fields(fields...))}
	}
	return in.frame(in.fields(fields...))
}

// pathOf returns the name of a field in an error; for a list, the name of its first element.
func pathOf(way frametest.Way, element bool) string {
	var path []string
	for i, field := range way {
		name := string(field.Name())
		if field.IsList() && (element || i < len(way)-1) {
			name += "[0]"
		}
		path = append(path, name)
	}
	return strings.Join(path, ".")
}

type inJSON struct{}

func (inJSON) codec() frame.Codec { return frame.JSON }

func (inJSON) value(field protoreflect.FieldDescriptor) string {
	switch {
	case field.IsMap(), field.Message() != nil:
		return "{}"
	case field.Kind() == protoreflect.StringKind || field.Kind() == protoreflect.BytesKind:
		return `""`
	case field.Kind() == protoreflect.BoolKind:
		return "true"
	default:
		return "1"
	}
}

func (inJSON) field(field protoreflect.FieldDescriptor, value string) string {
	if field.IsList() {
		value = "[" + value + "]"
	}
	return `"` + field.JSONName() + `":` + value
}

func (inJSON) fields(fields ...string) string                    { return "{" + strings.Join(fields, ",") + "}" }
func (j inJSON) wrong(field protoreflect.FieldDescriptor) string { return j.field(field, "[]") }
func (inJSON) unknown() string                                   { return `"unheard of":1` }
func (inJSON) frame(fields string) []byte                        { return []byte(fields) }

type inProto struct{}

func (inProto) codec() frame.Codec { return frame.Proto }

func (inProto) value(field protoreflect.FieldDescriptor) string {
	switch field.Kind() {
	case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.MessageKind:
		return ""
	default:
		return "\x01"
	}
}

func (inProto) field(field protoreflect.FieldDescriptor, value string) string {
	switch field.Kind() {
	case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.MessageKind:
		return string(protowire.AppendString(protowire.AppendTag(nil, field.Number(), protowire.BytesType), value))
	default:
		return string(protowire.AppendTag(nil, field.Number(), protowire.VarintType)) + value
	}
}

func (inProto) fields(fields ...string) string { return strings.Join(fields, "") }

func (inProto) wrong(field protoreflect.FieldDescriptor) string {
	return string(protowire.AppendFixed64(protowire.AppendTag(nil, field.Number(), protowire.Fixed64Type), 1))
}

func (inProto) unknown() string {
	return string(protowire.AppendVarint(protowire.AppendTag(nil, protowire.MaxValidNumber, protowire.VarintType), 1))
}

func (inProto) frame(fields string) []byte { return protowire.AppendString(nil, fields) }
