package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

// schema is the input of the generator: the root messages and all messages in them, at any depth.
type schema struct {
	// all is every message, by full name.
	all []*protogen.Message
	// strict are the messages that a strictly decoded root contains.
	strict []*protogen.Message
	roots  map[*protogen.Message]bool
	names  map[*protogen.Message]string
	// packages are the names of the Go packages by import path.
	packages map[protogen.GoImportPath]protogen.GoPackageName
}

// load finds the messages. It returns an error if a message has a feature that the generated code cannot handle.
func load(set *descriptorpb.FileDescriptorSet, strict, lenient []string) (*schema, error) {
	request := &pluginpb.CodeGeneratorRequest{ProtoFile: set.GetFile()}
	for _, file := range set.GetFile() {
		request.FileToGenerate = append(request.FileToGenerate, file.GetName())
	}
	plugin, err := protogen.Options{}.New(request)
	if err != nil {
		return nil, fmt.Errorf("read the schema: %w", err)
	}
	s := &schema{
		roots:    map[*protogen.Message]bool{},
		packages: map[protogen.GoImportPath]protogen.GoPackageName{},
	}
	messages := map[protoreflect.FullName]*protogen.Message{}
	for _, file := range plugin.Files {
		s.packages[file.GoImportPath] = file.GoPackageName
		for _, message := range file.Messages {
			messages[message.Desc.FullName()] = message
		}
	}
	reach := func(names []string, reached map[*protogen.Message]bool) error {
		for _, name := range names {
			root := messages[protoreflect.FullName(name)]
			if root == nil {
				return fmt.Errorf("the schema holds no message %s", name)
			}
			s.roots[root] = true
			if err := collect(root, reached); err != nil {
				return err
			}
		}
		return nil
	}
	reached := map[*protogen.Message]bool{}
	if err := reach(strict, reached); err != nil {
		return nil, err
	}
	s.strict = sorted(reached)
	if err := reach(lenient, reached); err != nil {
		return nil, err
	}
	s.all = sorted(reached)
	return s, s.name()
}

func sorted(messages map[*protogen.Message]bool) []*protogen.Message {
	return slices.SortedFunc(maps.Keys(messages), func(a, b *protogen.Message) int {
		return strings.Compare(string(a.Desc.FullName()), string(b.Desc.FullName()))
	})
}

// collect adds a message and the messages in it.
func collect(message *protogen.Message, reached map[*protogen.Message]bool) error {
	if reached[message] {
		return nil
	}
	if err := checkMessage(message); err != nil {
		return err
	}
	reached[message] = true
	for _, field := range message.Fields {
		inner := field.Message
		if field.Desc.IsMap() {
			inner = value(field).Message
		}
		if inner == nil {
			continue
		}
		if err := collect(inner, reached); err != nil {
			return err
		}
	}
	return nil
}

// name gives every message the name that its functions use: its own name. If two messages have the same name, the
// package's name comes first.
func (s *schema) name() error {
	shared := map[string]int{}
	for _, message := range s.all {
		shared[message.GoIdent.GoName]++
	}
	s.names = map[*protogen.Message]string{}
	taken := map[string]bool{}
	for _, message := range s.all {
		name := message.GoIdent.GoName
		if shared[name] > 1 {
			pkg := strings.TrimRight(string(s.packages[message.GoIdent.GoImportPath]), "0123456789")
			name = strings.ToUpper(pkg[:1]) + strings.TrimSuffix(pkg[1:], "v") + name
		}
		if taken[name] {
			return fmt.Errorf("%s: another message gets the name %s too; rename one of them", message.Desc.FullName(), name)
		}
		taken[name] = true
		s.names[message] = name
	}
	return nil
}

// value returns the value field of a map's entries.
func value(field *protogen.Field) *protogen.Field { return field.Message.Fields[1] }

// isOneof reports whether a field belongs to a oneof that the schema declares. An optional field does not.
func isOneof(field *protogen.Field) bool {
	return field.Oneof != nil && !field.Oneof.Desc.IsSynthetic()
}

// maxFields limits the number of fields of a message outside of oneofs: the check of binary frames marks them in one
// 64-bit word.
const maxFields = 64

func checkMessage(message *protogen.Message) error {
	if strings.HasPrefix(string(message.Desc.FullName()), "google.protobuf.") {
		return fmt.Errorf("%s has a JSON form of its own, which is not supported; use a message of this protocol", message.Desc.FullName())
	}
	if message.Desc.ExtensionRanges().Len() > 0 {
		return fmt.Errorf("%s allows extensions, which are not supported", message.Desc.FullName())
	}
	plain := 0
	for _, field := range message.Fields {
		if !isOneof(field) {
			plain++
		}
		if err := checkField(field); err != nil {
			return err
		}
	}
	if plain > maxFields {
		return fmt.Errorf("%s has %d fields outside of oneofs; at most %d are supported", message.Desc.FullName(), plain, maxFields)
	}
	return nil
}

func checkField(field *protogen.Field) error {
	refuse := func(why string) error { return fmt.Errorf("%s %s", field.Desc.FullName(), why) }
	if field.Desc.Cardinality() == protoreflect.Required {
		return refuse("is required, which is not supported; use an optional field")
	}
	if field.Desc.IsMap() {
		if field.Desc.MapKey().Kind() != protoreflect.StringKind {
			return refuse("has map keys of kind " + field.Desc.MapKey().Kind().String() + ", which are not supported; use string")
		}
		return checkKind(value(field), refuse)
	}
	return checkKind(field, refuse)
}

func checkKind(field *protogen.Field, refuse func(string) error) error {
	kind := field.Desc.Kind()
	switch kind {
	case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.BoolKind, protoreflect.Int32Kind, protoreflect.Int64Kind,
		protoreflect.Uint32Kind, protoreflect.Uint64Kind, protoreflect.MessageKind:
		return nil
	case protoreflect.EnumKind:
		if field.Enum.Desc.IsClosed() {
			return refuse("is a closed enum, which is not supported; use proto3")
		}
		return nil
	case protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return refuse("is of kind " + kind.String() + ", which is not supported; use int32")
	case protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return refuse("is of kind " + kind.String() + ", which is not supported; use int64")
	case protoreflect.Fixed32Kind:
		return refuse("is of kind " + kind.String() + ", which is not supported; use uint32")
	case protoreflect.Fixed64Kind:
		return refuse("is of kind " + kind.String() + ", which is not supported; use uint64")
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return refuse("is of kind " + kind.String() + ", which is not supported: it has no canonical form; use an integer")
	case protoreflect.GroupKind:
		return refuse("is a group, which is not supported; use a message")
	default:
		return refuse("is of kind " + kind.String() + ", which is not supported")
	}
}
