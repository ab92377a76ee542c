package main

import (
	"strconv"

	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// readJSON writes the function that decodes a message from JSON; the scanner decides whether it is strict.
func (s *source) readJSON(message *protogen.Message) {
	s.p("\nfunc (s *scanner) read%s(m *%s) {", s.of(message), s.goName(message.GoIdent))
	if len(message.Fields) == 0 {
		s.p("for more := s.open(); more; more = s.more() {\ns.key()\ns.unknown()\n}\n}")
		return
	}
	s.p("var seen [%d]uint64", (len(message.Fields)+63)/64)
	s.p("for more := s.open(); more; more = s.more() {")
	s.p("switch string(s.key()) {")
	for i, field := range message.Fields {
		name := string(field.Desc.Name())
		if json := field.Desc.JSONName(); json == name {
			s.p("case %q:", name)
		} else {
			s.p("case %q, %q:", json, name)
		}
		mark := "&seen[" + strconv.Itoa(i/64) + "], 1<<" + strconv.Itoa(i%64)
		if isOneof(field) {
			s.p("if s.choose(%q, %s, m.%s != nil) {", name, mark, field.Oneof.GoName)
		} else {
			s.p("if s.enter(%q, %s) {", name, mark)
		}
		s.readField(message, field)
		s.p("s.leave()\n}")
	}
	s.p("default:\ns.unknown()\n}\n}\n}")
}

func (s *source) readField(message *protogen.Message, field *protogen.Field) {
	name := "m." + field.GoName
	switch {
	case field.Desc.IsMap():
		s.p("%s = map[string]%s{}", name, s.goType(value(field)))
		s.p("for more := s.open(); more; more = s.more() {")
		s.p("key := string(s.key())")
		s.p("if _, twice := %s[key]; twice {\ns.fail(keyTwice)\n}", name)
		s.readValue(value(field), func(v string) { s.p("%s[key] = %s", name, v) })
		s.p("}")
	case field.Desc.IsList():
		s.p("for more := s.openList(); more; more = s.moreElements() {")
		s.readValue(field, func(v string) { s.p("%s = append(%s, %s)", name, name, v) })
		s.p("}")
	case isOneof(field):
		s.readValue(field, func(v string) {
			s.p("m.%s = &%s{%s: %s}", field.Oneof.GoName, s.goName(field.GoIdent), field.GoName, v)
		})
	case field.Desc.HasPresence() && field.Desc.Kind() != protoreflect.MessageKind && field.Desc.Kind() != protoreflect.BytesKind:
		s.readValue(field, func(v string) { s.p("%s = new(%s)\n*%s = %s", name, s.goType(field), name, v) })
	default:
		s.readValue(field, func(v string) { s.p("%s = %s", name, v) })
		if s.isID(message, field) {
			s.p("s.id = %s", name)
		}
	}
}

// isID reports whether a field is the id of a frame, which errors contain.
func (s *source) isID(message *protogen.Message, field *protogen.Field) bool {
	return s.roots[message] && field.Desc.Name() == "id" && field.Desc.Kind() == protoreflect.Uint64Kind && !field.Desc.HasPresence() && !field.Desc.IsList()
}

// readValue writes the code that reads one value and stores it.
func (s *source) readValue(field *protogen.Field, store func(v string)) {
	switch kind := field.Desc.Kind(); kind {
	case protoreflect.StringKind:
		store("s.text()")
	case protoreflect.BytesKind:
		store("s.base64()")
	case protoreflect.EnumKind:
		s.p("if v, known := s.enum(%s, %s); known {", s.enum(field.Enum, "_value"), s.enum(field.Enum, "_name"))
		store(s.goType(field) + "(v)")
		s.p("}")
	case protoreflect.MessageKind:
		s.p("v := new(%s)\ns.read%s(v)", s.goName(field.Message.GoIdent), s.of(field.Message))
		store("v")
	default:
		store("s." + kind.String() + "()")
	}
}
