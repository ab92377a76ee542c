package frame

import (
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// wire checks the binary form of a client's frame before it is decoded. Without this check, the decoder would keep
// unknown fields, accept text that is not UTF-8, truncate integers to their type, and use the last of two requests. Each
// message has a generated method; this file contains the shared code. Every method returns false after an error, which
// ends the check.
type wire struct {
	path path
	id   uint64
	err  *Error
}

const (
	notProtobuf  = "is not a protobuf message of this protocol"
	wrongType    = "has the wrong type"
	unknownField = "holds a field that this version does not know"
	unknownValue = "is a value that this version does not know"
	tooDeep      = "is nested too deep"
	givenTwice   = "is given twice"
	keyTwice     = "has a key twice"
	secondChoice = "is a second choice where only one may be made"
	notUTF8      = "is not valid UTF-8"
)

func (w *wire) fail(message string) bool {
	if w.err == nil {
		w.err = &Error{Field: w.path.String(), Message: message}
	}
	return false
}

// tag reads the number and the wire type of a field. The number is 0 after an error.
func (w *wire) tag(data *[]byte) (protowire.Number, protowire.Type) {
	number, kind, n := protowire.ConsumeTag(*data)
	if n < 0 {
		w.fail(notProtobuf)
		return 0, 0
	}
	*data = (*data)[n:]
	return number, kind
}

// unknown refuses a field that is not in the schema.
func (w *wire) unknown() bool { return w.fail(unknownField) }

// enter begins a field; leave ends it. After an error, leave is not called.
func (w *wire) enter(name string) bool { return w.path.push(name) || w.fail(tooDeep) }

func (w *wire) leave() { w.path.pop() }

// once begins a field that may occur once. Each field of a message has a bit in seen.
func (w *wire) once(name string, seen *uint64, bit uint64) bool {
	if !w.enter(name) {
		return false
	}
	if *seen&bit != 0 {
		return w.fail(givenTwice)
	}
	*seen |= bit
	return true
}

// choose begins a field of a oneof. chosen is the number of the field of the oneof that came before, or 0.
func (w *wire) choose(name string, chosen *protowire.Number, number protowire.Number) bool {
	switch {
	case !w.enter(name):
		return false
	case *chosen == number:
		return w.fail(givenTwice)
	case *chosen != 0:
		return w.fail(secondChoice)
	}
	*chosen = number
	return true
}

// place counts the elements of a list, for the path.
func (w *wire) place(count *int) bool {
	w.path.at(*count)
	*count++
	return true
}

// open reads the content of a field that has a length.
func (w *wire) open(kind protowire.Type, data, content *[]byte) bool {
	if kind != protowire.BytesType {
		return w.wrong(kind, *data)
	}
	value, n := protowire.ConsumeBytes(*data)
	if n < 0 {
		return w.fail(notProtobuf)
	}
	*content, *data = value, (*data)[n:]
	return true
}

// wrong refuses a field whose wire type is invalid, or differs from the schema.
func (w *wire) wrong(kind protowire.Type, data []byte) bool {
	// The field number does not matter, except for groups, whose end repeats the number.
	if kind != protowire.StartGroupType && protowire.ConsumeFieldValue(1, kind, data) < 0 {
		return w.fail(notProtobuf)
	}
	return w.fail(wrongType)
}

func (w *wire) bytes(kind protowire.Type, data *[]byte) bool {
	var content []byte
	return w.open(kind, data, &content)
}

func (w *wire) text(kind protowire.Type, data *[]byte) bool {
	var content []byte
	return w.key(kind, data, &content)
}

// key is the expected text.
func (w *wire) key(kind protowire.Type, data, content *[]byte) bool {
	if !w.open(kind, data, content) {
		return false
	}
	return utf8.Valid(*content) || w.fail(notUTF8)
}

// newKey records a key of a map. Each key may occur once.
func (w *wire) newKey(keys *map[string]struct{}, key []byte) bool {
	if _, twice := (*keys)[string(key)]; twice {
		return w.fail(keyTwice)
	}
	if *keys == nil {
		*keys = map[string]struct{}{}
	}
	(*keys)[string(key)] = struct{}{}
	return true
}

// frameID reads the frame's id, so that an error can name it.
func (w *wire) frameID(kind protowire.Type, data *[]byte) bool {
	v, ok := w.number(kind, data)
	if ok {
		w.id = v
	}
	return ok
}

func (w *wire) number(kind protowire.Type, data *[]byte) (uint64, bool) {
	if kind != protowire.VarintType {
		return 0, w.wrong(kind, *data)
	}
	v, n := protowire.ConsumeVarint(*data)
	if n < 0 {
		return 0, w.fail(notProtobuf)
	}
	*data = (*data)[n:]
	return v, true
}

// varint reads an integer, bool or enum. check returns why a value is invalid; nil if every value is valid.
func (w *wire) varint(kind protowire.Type, data *[]byte, check func(uint64) string) bool {
	v, ok := w.number(kind, data)
	if !ok || check == nil {
		return ok
	}
	if wrong := check(v); wrong != "" {
		return w.fail(wrong)
	}
	return true
}

// packed reads an element of a list of varints, or several packed elements.
func (w *wire) packed(kind protowire.Type, data *[]byte, count *int, check func(uint64) string) bool {
	w.place(count)
	if kind != protowire.BytesType {
		return w.varint(kind, data, check)
	}
	var content []byte
	if !w.open(kind, data, &content) {
		return false
	}
	for first := true; len(content) > 0; first = false {
		if !first {
			w.place(count)
		}
		if !w.varint(protowire.VarintType, &content, check) {
			return false
		}
	}
	return true
}

func checkUint32(v uint64) string {
	if v > math.MaxUint32 {
		return "must be at most 4294967295"
	}
	return ""
}

func checkInt32(v uint64) string {
	if n := int64(v); n != int64(int32(n)) {
		return "must be a whole number of 32 bits"
	}
	return ""
}

func checkBool(v uint64) string {
	if v > 1 {
		return wrongType
	}
	return ""
}

func checkEnum(v uint64, names map[int32]string) string {
	n := int64(v)
	if _, known := names[int32(n)]; !known || n != int64(int32(n)) {
		return unknownValue
	}
	return ""
}
