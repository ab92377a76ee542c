package conversation

import "google.golang.org/protobuf/reflect/protoreflect"

// HasUnknownFields reports whether a message contains fields that this build does not know, at any depth. Such a message
// was written by a later version.
func HasUnknownFields(m protoreflect.Message) (found bool) {
	if len(m.GetUnknown()) > 0 {
		return true
	}
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.IsMap() || field.Message() == nil:
		case field.IsList():
			for i := range value.List().Len() {
				found = found || HasUnknownFields(value.List().Get(i).Message())
			}
		default:
			found = HasUnknownFields(value.Message())
		}
		return !found
	})
	return found
}
