package conversation_test

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// notCanonical returns why an encoding is not canonical; empty if it is. It follows the wire form along the schema.
func notCanonical(t *testing.T, schema protoreflect.MessageDescriptor, data []byte) string {
	t.Helper()
	last, lastKey := protowire.Number(0), ""
	for len(data) > 0 {
		number, wireType, n := protowire.ConsumeTag(data)
		if n < 0 {
			return "is cut off"
		}
		field := schema.Fields().ByNumber(number)
		size := protowire.ConsumeFieldValue(number, wireType, data[n:])
		if field == nil || size < 0 {
			return fmt.Sprintf("field %d is unknown or cut off", number)
		}
		value := data[n : n+size]
		data = data[n+size:]
		repeats := field.IsMap() || field.IsList() && field.Kind() == protoreflect.StringKind
		switch {
		case number < last || number == last && !repeats:
			return fmt.Sprintf("field %d is out of order, or comes twice", number)
		case field.IsList() && field.IsPacked() && wireType != protowire.BytesType:
			return fmt.Sprintf("field %d is not packed", number)
		case wireType == protowire.VarintType && len(value) == 1 && value[0] == 0 && !field.HasPresence():
			return fmt.Sprintf("field %d is at its default", number)
		case wireType == protowire.BytesType && len(value) == 1 && !field.HasPresence() && !field.IsList() && !field.IsMap():
			return fmt.Sprintf("field %d is at its default", number)
		}
		if number != last {
			lastKey = ""
		}
		last = number
		if field.IsMap() {
			entry, _ := protowire.ConsumeBytes(value)
			_, _, tag := protowire.ConsumeTag(entry)
			key, _ := protowire.ConsumeString(entry[tag:])
			if strings.Compare(key, lastKey) <= 0 && lastKey != "" {
				return fmt.Sprintf("field %d is not sorted by key", number)
			}
			lastKey = key
		} else if field.Message() != nil {
			content, _ := protowire.ConsumeBytes(value)
			if reason := notCanonical(t, field.Message(), content); reason != "" {
				return fmt.Sprintf("%d: %s", number, reason)
			}
		}
	}
	return ""
}

// idFields are the text fields that contain user ids.
var idFields = map[protoreflect.FullName]bool{
	"runnel.conversation.v1.AddMembers.members":  true,
	"runnel.conversation.v1.RemoveMember.member": true,
	"runnel.conversation.v1.Erase.sender":        true,
}

// freeText returns a field of a message, at any depth, that may contain free text; nil if there is none.
func freeText(m protoreflect.Message) protoreflect.FieldDescriptor {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		switch {
		case field.ContainingOneof() != nil && m.WhichOneof(field.ContainingOneof()) != field:
		case field.Kind() == protoreflect.StringKind && !idFields[field.FullName()], field.Kind() == protoreflect.BytesKind:
			return field
		case field.Message() != nil && !field.IsMap() && !field.IsList():
			if found := freeText(m.Get(field).Message()); found != nil {
				return found
			}
		}
	}
	return nil
}
