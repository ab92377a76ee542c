package frame_test

import (
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"
)

// fill sets random fields of a message, deep down, with any values that their types can hold.
func fill(t *rapid.T, m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	oneofs := map[protoreflect.Name]bool{}
	for i := range fields.Len() {
		field := fields.Get(i)
		if oneof := field.ContainingOneof(); oneof != nil {
			// One of each oneof, always: a frame or a body without a choice is refused.
			if oneofs[oneof.Name()] {
				continue
			}
			oneofs[oneof.Name()] = true
			field = oneof.Fields().Get(rapid.IntRange(0, oneof.Fields().Len()-1).Draw(t, "choice"))
		} else if !rapid.Bool().Draw(t, "set") {
			continue
		}
		switch {
		case field.IsMap():
			values := m.Mutable(field).Map()
			for range rapid.IntRange(0, 3).Draw(t, "entries") {
				values.Set(scalar(t, field.MapKey()).MapKey(), scalar(t, field.MapValue()))
			}
		case field.IsList():
			list := m.Mutable(field).List()
			for range rapid.IntRange(0, 3).Draw(t, "elements") {
				if field.Message() != nil {
					fill(t, list.AppendMutable().Message())
				} else {
					list.Append(scalar(t, field))
				}
			}
		case field.Message() != nil:
			fill(t, m.Mutable(field).Message())
		case field.FullName() == "runnel.client.v1.Submit.traceparent":
			m.Set(field, protoreflect.ValueOfString(rapid.StringMatching("00-[0-9a-f]{31}1-[0-9a-f]{15}1-[0-9a-f]{2}").Draw(t, "traceparent")))
		default:
			m.Set(field, scalar(t, field))
		}
	}
}

func scalar(t *rapid.T, field protoreflect.FieldDescriptor) protoreflect.Value {
	switch field.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(rapid.String().Draw(t, "text"))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "bytes"))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(rapid.Bool().Draw(t, "bool"))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(rapid.Uint64().Draw(t, "uint64"))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(rapid.Uint32().Draw(t, "uint32"))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(rapid.Int64().Draw(t, "int64"))
	case protoreflect.EnumKind:
		values := field.Enum().Values()
		return protoreflect.ValueOfEnum(values.Get(rapid.IntRange(0, values.Len()-1).Draw(t, "enum")).Number())
	default:
		panic("no field of the protocol is of kind " + field.Kind().String())
	}
}
