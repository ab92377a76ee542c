package terminaltest

import (
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Text is Hostile as valid UTF-8, because protobuf strings must be valid.
var Text = strings.ToValidUTF8(Hostile, "?")

// Spoil sets every text in a message to hostile text. Every list gets one entry, and every number is 1.
func Spoil(m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		switch {
		case field.ContainingOneof() != nil && m.WhichOneof(field.ContainingOneof()) != nil:
		case field.IsMap():
			if field.MapValue().Kind() == protoreflect.StringKind {
				m.Mutable(field).Map().Set(hostile().MapKey(), hostile())
			}
		case field.Message() != nil && field.IsList():
			list := m.Mutable(field).List()
			element := list.NewElement()
			Spoil(element.Message())
			list.Append(element)
		case field.Message() != nil:
			Spoil(m.Mutable(field).Message())
		case field.IsList():
			m.Mutable(field).List().Append(scalar(field))
		default:
			m.Set(field, scalar(field))
		}
	}
}

func hostile() protoreflect.Value { return protoreflect.ValueOfString(Text) }

func scalar(field protoreflect.FieldDescriptor) protoreflect.Value {
	switch field.Kind() {
	case protoreflect.StringKind:
		return hostile()
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(Hostile))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(false) // there are no further pages
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(1)
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(1)
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return protoreflect.ValueOfInt64(1)
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(1)
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(1)
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(1)
	default:
		return protoreflect.ValueOfUint64(1)
	}
}
