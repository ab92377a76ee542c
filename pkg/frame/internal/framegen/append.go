package main

import (
	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// appendJSON writes the function that encodes a message as protojson does.
func (s *source) appendJSON(message *protogen.Message) {
	s.p("\nfunc append%sJSON(dst []byte, m *%s) []byte {", s.of(message), s.goName(message.GoIdent))
	s.p("dst = append(dst, '{')")
	if len(message.Fields) > 0 {
		s.p("if m == nil {\nreturn append(dst, '}')\n}")
	}
	for _, field := range message.Fields {
		switch {
		case isOneof(field):
			// protojson keeps the order of declaration, and the fields of a oneof are declared together.
			if field == field.Oneof.Fields[0] {
				s.appendOneof(field.Oneof)
			}
		default:
			s.appendField(field)
		}
	}
	s.p("return append(dst, '}')\n}")
}

func (s *source) appendOneof(oneof *protogen.Oneof) {
	s.p("switch v := m.%s.(type) {", oneof.GoName)
	for _, field := range oneof.Fields {
		s.p("case *%s:", s.goName(field.GoIdent))
		s.p("dst = %s", s.appendValue(field, appendKey(field), "v."+field.GoName))
	}
	s.p("}")
}

// appendKey returns the code that begins a field.
func appendKey(field *protogen.Field) string {
	return "appendKey(dst, `\"" + field.Desc.JSONName() + "\":`)"
}

func (s *source) appendField(field *protogen.Field) {
	name := "m." + field.GoName
	switch {
	case field.Desc.IsMap():
		s.p("if len(%s) > 0 {", name)
		s.p("dst = append(%s, '{')", appendKey(field))
		s.p("var keys [mapKeys]string")
		s.p("for _, key := range sortedKeys(%s, keys[:0]) {", name)
		s.p("dst = append(appendText(appendComma(dst), key), ':')")
		s.p("dst = %s", s.appendValue(value(field), "dst", name+"[key]"))
		s.p("}\ndst = append(dst, '}')\n}")
	case field.Desc.IsList():
		s.p("if len(%s) > 0 {", name)
		s.p("dst = append(%s, '[')", appendKey(field))
		s.p("for _, v := range %s {", name)
		s.p("dst = %s", s.appendValue(field, "appendComma(dst)", "v"))
		s.p("}\ndst = append(dst, ']')\n}")
	default:
		condition, v := isSet(field, name)
		s.p("if %s {", condition)
		s.p("dst = %s", s.appendValue(field, appendKey(field), v))
		s.p("}")
	}
}

// isSet returns the condition under which a singular field is encoded, and the value to encode.
func isSet(field *protogen.Field, name string) (condition, v string) {
	kind := field.Desc.Kind()
	switch {
	case kind == protoreflect.MessageKind:
		return name + " != nil", name
	case field.Desc.HasPresence() && kind == protoreflect.BytesKind:
		return name + " != nil", name
	case field.Desc.HasPresence():
		return name + " != nil", "*" + name
	case kind == protoreflect.StringKind:
		return name + ` != ""`, name
	case kind == protoreflect.BytesKind:
		return "len(" + name + ") > 0", name
	case kind == protoreflect.BoolKind:
		return name, name
	default:
		return name + " != 0", name
	}
}

// appendValue returns the code that encodes one value and appends it to dst.
func (s *source) appendValue(field *protogen.Field, dst, v string) string {
	arguments := "(" + dst + ", " + v + ")"
	switch field.Desc.Kind() {
	case protoreflect.StringKind:
		return "appendText" + arguments
	case protoreflect.BytesKind:
		return "appendBase64" + arguments
	case protoreflect.BoolKind:
		return "appendBool" + arguments
	case protoreflect.Int32Kind:
		return "appendInt32" + arguments
	case protoreflect.Uint32Kind:
		return "appendUint32" + arguments
	case protoreflect.Int64Kind:
		return "appendInt64" + arguments
	case protoreflect.Uint64Kind:
		return "appendUint64" + arguments
	case protoreflect.EnumKind:
		return "appendEnum(" + dst + ", int32(" + v + "), " + s.enum(field.Enum, "_name") + ")"
	default:
		return "append" + s.of(field.Message) + "JSON" + arguments
	}
}
