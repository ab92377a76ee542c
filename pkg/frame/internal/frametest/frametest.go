// Package frametest makes random messages for the tests of package frame, and contains a schema with every feature that
// framegen supports.
package frametest

import (
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"
)

// Traceparent is a valid W3C trace context.
const Traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// Options configure Fill.
type Options struct {
	// Set are fields that are always set where they occur; in a oneof, they are chosen.
	Set Way
	// OpenEnums also sets enums to values that the schema does not know.
	OpenEnums bool
	// NoChoice leaves some oneofs without a choice.
	NoChoice bool
}

// Fill sets random fields of a message, at any depth, to random values of their types.
func Fill(t *rapid.T, m proto.Message, options Options) {
	(&filler{t: t, Options: options}).message(m.ProtoReflect(), 0)
}

type filler struct {
	Options

	t *rapid.T
}

func (f *filler) message(m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		if oneof := field.ContainingOneof(); oneof != nil && !oneof.IsSynthetic() {
			// Choose at the first field of a oneof.
			if field == oneof.Fields().Get(0) {
				f.choose(m, oneof, depth)
			}
			continue
		}
		// Messages that contain themselves would grow without end.
		if holdsItself(field) && depth > 3 {
			continue
		}
		if f.must(field) || f.flip() {
			f.field(m, field, depth)
		}
	}
}

func (f *filler) choose(m protoreflect.Message, oneof protoreflect.OneofDescriptor, depth int) {
	for i := range oneof.Fields().Len() {
		if field := oneof.Fields().Get(i); f.must(field) {
			f.field(m, field, depth)
			return
		}
	}
	if f.NoChoice && rapid.IntRange(0, 9).Draw(f.t, "no choice") == 0 {
		return
	}
	f.field(m, oneof.Fields().Get(rapid.IntRange(0, oneof.Fields().Len()-1).Draw(f.t, "choice")), depth)
}

func holdsItself(field protoreflect.FieldDescriptor) bool {
	inner := field.Message()
	if field.IsMap() {
		inner = field.MapValue().Message()
	}
	return inner == field.ContainingMessage()
}

func (f *filler) must(field protoreflect.FieldDescriptor) bool { return slices.Contains(f.Set, field) }

func (f *filler) flip() bool { return rapid.Bool().Draw(f.t, "set") }

func (f *filler) field(m protoreflect.Message, field protoreflect.FieldDescriptor, depth int) {
	least := 0
	if f.must(field) {
		least = 1
	}
	switch {
	case field.IsMap():
		values := m.Mutable(field).Map()
		for range rapid.IntRange(least, 3).Draw(f.t, "entries") {
			key := f.scalar(field.MapKey()).MapKey()
			if field.MapValue().Message() != nil {
				f.message(values.Mutable(key).Message(), depth+1)
			} else {
				values.Set(key, f.scalar(field.MapValue()))
			}
		}
	case field.IsList():
		list := m.Mutable(field).List()
		for range rapid.IntRange(least, 3).Draw(f.t, "elements") {
			if field.Message() != nil {
				f.message(list.AppendMutable().Message(), depth+1)
			} else {
				list.Append(f.scalar(field))
			}
		}
	case field.Message() != nil:
		f.message(m.Mutable(field).Message(), depth+1)
	case field.FullName() == "runnel.client.v1.Submit.traceparent":
		m.Set(field, protoreflect.ValueOfString(rapid.StringMatching("00-[0-9a-f]{31}1-[0-9a-f]{15}1-[0-9a-f]{2}").Draw(f.t, "traceparent")))
	default:
		m.Set(field, f.scalar(field))
	}
}

func (f *filler) scalar(field protoreflect.FieldDescriptor) protoreflect.Value {
	switch kind := field.Kind(); kind {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(rapid.String().Draw(f.t, "text"))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(f.t, "bytes"))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(rapid.Bool().Draw(f.t, "bool"))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(rapid.Int32().Draw(f.t, "int32"))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(rapid.Int64().Draw(f.t, "int64"))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(rapid.Uint32().Draw(f.t, "uint32"))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(rapid.Uint64().Draw(f.t, "uint64"))
	case protoreflect.EnumKind:
		if f.OpenEnums && f.flip() {
			return protoreflect.ValueOfEnum(protoreflect.EnumNumber(rapid.Int32().Draw(f.t, "number")))
		}
		values := field.Enum().Values()
		return protoreflect.ValueOfEnum(values.Get(rapid.IntRange(0, values.Len()-1).Draw(f.t, "enum")).Number())
	default:
		f.t.Fatalf("%s is of kind %s, which framegen refuses", field.FullName(), kind)
		return protoreflect.Value{}
	}
}

// Way is the path to a field: the fields that lead to it, and the field itself as the last.
type Way = []protoreflect.FieldDescriptor

// EveryField calls fn with every field in a message at any depth, and the path to it.
func EveryField(m proto.Message, fn func(name string, way Way)) {
	seen := map[protoreflect.FieldDescriptor]bool{}
	var visit func(m protoreflect.MessageDescriptor, way Way)
	visit = func(m protoreflect.MessageDescriptor, way Way) {
		for i := range m.Fields().Len() {
			field := m.Fields().Get(i)
			if seen[field] {
				continue
			}
			seen[field] = true
			here := append(slices.Clip(way), field)
			if !m.IsMapEntry() {
				fn(string(field.FullName()), here)
			}
			if field.Message() != nil {
				visit(field.Message(), here)
			}
		}
	}
	visit(m.ProtoReflect().Descriptor(), nil)
}
