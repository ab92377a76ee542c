package main

import (
	"strconv"
	"strings"

	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// checkWire writes the function that checks the binary form of a message, and one more for the entries of each map field.
func (s *source) checkWire(message *protogen.Message) {
	s.p("\nfunc (w *wire) check%s(data []byte) bool {", s.of(message))
	s.checkFields(message, nil)
	for _, field := range message.Fields {
		if field.Desc.IsMap() {
			s.p("\nfunc (w *wire) check%s%sEntry(data []byte, keys *map[string]struct{}) bool {", s.of(message), field.GoName)
			s.checkFields(field.Message, field)
		}
	}
}

// checkFields writes the body of a check function. For an entry of a map it also checks that the key is new.
func (s *source) checkFields(message *protogen.Message, mapField *protogen.Field) {
	if len(message.Fields) == 0 {
		s.p("if len(data) > 0 {\nw.tag(&data)\nreturn w.unknown()\n}\nreturn true\n}")
		return
	}
	s.checkVariables(message, mapField)
	s.p("for len(data) > 0 {")
	s.p("number, kind := w.tag(&data)")
	s.p("switch number {")
	plain := 0
	for _, field := range message.Fields {
		s.p("case %d:", field.Desc.Number())
		name := string(field.Desc.Name())
		var enter string
		switch {
		case field.Desc.IsList() || field.Desc.IsMap():
			enter = "w.enter(" + strconv.Quote(name) + ")"
		case isOneof(field):
			enter = "w.choose(" + strconv.Quote(name) + ", &chosen" + field.Oneof.GoName + ", number)"
		default:
			enter = "w.once(" + strconv.Quote(name) + ", &seen, 1<<" + strconv.Itoa(plain) + ")"
		}
		if !isOneof(field) {
			plain++
		}
		s.p("if !%s || !%s {\nreturn false\n}", enter, strings.Join(s.checkField(message, mapField, field), " || !"))
	}
	s.p("default:\nreturn w.unknown()\n}\nw.leave()\n}")
	if mapField != nil {
		s.p("return w.newKey(keys, key)\n}")
	} else {
		s.p("return true\n}")
	}
}

func (s *source) checkVariables(message *protogen.Message, mapField *protogen.Field) {
	var seen, content bool
	for _, field := range message.Fields {
		content = content || field.Message != nil
		switch {
		case field.Desc.IsMap():
			s.p("var keys%s map[string]struct{}", field.GoName)
		case field.Desc.IsList():
			s.p("var count%s int", field.GoName)
		case isOneof(field):
			if field == field.Oneof.Fields[0] {
				s.p("var chosen%s protowire.Number", field.Oneof.GoName)
			}
		default:
			seen = true
		}
	}
	if seen {
		s.p("var seen uint64")
	}
	if content {
		s.p("var content []byte")
	}
	if mapField != nil {
		s.p("var key []byte")
	}
}

// checkField returns the conditions that the value of a field must meet.
func (s *source) checkField(message *protogen.Message, mapField, field *protogen.Field) []string {
	open := "w.open(kind, &data, &content)"
	place := "w.place(&count" + field.GoName + ")"
	switch {
	case field.Desc.IsMap():
		return []string{open, "w.check" + s.of(message) + field.GoName + "Entry(content, &keys" + field.GoName + ")"}
	case field.Message != nil && field.Desc.IsList():
		return []string{place, open, "w.check" + s.of(field.Message) + "(content)"}
	case field.Message != nil:
		return []string{open, "w.check" + s.of(field.Message) + "(content)"}
	case field.Desc.IsList() && field.Desc.Kind() != protoreflect.StringKind && field.Desc.Kind() != protoreflect.BytesKind:
		return []string{"w.packed(kind, &data, &count" + field.GoName + ", " + s.checkNumber(field) + ")"}
	case field.Desc.IsList():
		return []string{place, s.checkScalar(field)}
	case mapField != nil && field.Desc.Number() == 1:
		return []string{"w.key(kind, &data, &key)"}
	case s.isID(message, field):
		return []string{"w.frameID(kind, &data)"}
	default:
		return []string{s.checkScalar(field)}
	}
}

func (s *source) checkScalar(field *protogen.Field) string {
	switch field.Desc.Kind() {
	case protoreflect.StringKind:
		return "w.text(kind, &data)"
	case protoreflect.BytesKind:
		return "w.bytes(kind, &data)"
	default:
		return "w.varint(kind, &data, " + s.checkNumber(field) + ")"
	}
}

// checkNumber returns the function that checks the value of a varint.
func (s *source) checkNumber(field *protogen.Field) string {
	switch kind := field.Desc.Kind(); kind {
	case protoreflect.Int64Kind, protoreflect.Uint64Kind:
		return "nil"
	case protoreflect.EnumKind:
		return "func(v uint64) string { return checkEnum(v, " + s.enum(field.Enum, "_name") + ") }"
	default:
		return "check" + strings.ToUpper(kind.String()[:1]) + kind.String()[1:]
	}
}
