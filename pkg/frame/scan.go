package frame

import (
	"bytes"
	"encoding/base64"
	"math"
	"slices"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// scanner reads the JSON of one frame from left to right. It follows the schema and never descends deeper than the
// schema. It builds no tree, uses no reflection, and needs no memory that input can make grow. Each message has a
// generated method; this file contains the shared code. The first error is kept. After it, every method returns zero
// values and every loop ends.
type scanner struct {
	data []byte
	pos  int
	// strict refuses unknown fields and enum values. Without strict, they are skipped.
	strict bool
	path   path
	id     uint64
	err    *Error
	// scratch contains the last text that had escapes.
	scratch []byte
}

func (s *scanner) fail(message string) {
	if s.err == nil {
		s.err = &Error{ID: s.id, Field: s.path.String(), Message: message}
	}
}

func (s *scanner) space() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\t', '\r', '\n':
			s.pos++
		default:
			return
		}
	}
}

// peek returns the next byte that is not white space; 0 at the end and after an error.
func (s *scanner) peek() byte {
	s.space()
	if s.pos == len(s.data) || s.err != nil {
		return 0
	}
	return s.data[s.pos]
}

// take skips the byte c if it comes next.
func (s *scanner) take(c byte) bool {
	if s.peek() != c {
		return false
	}
	s.pos++
	return true
}

func (s *scanner) expect(c byte, otherwise string) bool {
	if s.take(c) {
		return true
	}
	s.fail(otherwise)
	return false
}

// end checks that nothing follows the value.
func (s *scanner) end() {
	if s.space(); s.pos != len(s.data) {
		s.fail("is followed by something else on its line")
	}
}

// null skips a null, which means that a field is not set.
func (s *scanner) null() bool { return s.peek() == 'n' && s.literal("null") }

func (s *scanner) literal(word string) bool {
	if len(s.data)-s.pos < len(word) || string(s.data[s.pos:s.pos+len(word)]) != word {
		return false
	}
	s.pos += len(word)
	return true
}

const notJSON = "is not valid JSON"

// open begins an object. It returns false if the object is empty.
func (s *scanner) open() bool { return s.expect('{', "must be an object") && !s.take('}') }

// more advances to the next field of an object. It returns false if there is no next field.
func (s *scanner) more() bool {
	if s.take('}') {
		return false
	}
	return s.expect(',', notJSON)
}

// key reads a field's name and the colon after it. The result is valid until the next text is read; nil after an error.
func (s *scanner) key() []byte {
	if s.peek() != '"' {
		s.fail(notJSON)
		return nil
	}
	key := s.bytes()
	if !s.expect(':', notJSON) {
		return nil
	}
	return key
}

// enter begins a field whose key was read; leave ends it. Each field of a message has a bit in seen. enter returns false
// if there is no value to read: after an error, or if the value is null, which means that the field is not set.
func (s *scanner) enter(name string, seen *uint64, bit uint64) bool {
	if !s.path.push(name) {
		s.fail(tooDeep)
		return false
	}
	if *seen&bit != 0 {
		s.fail(givenTwice)
		return false
	}
	*seen |= bit
	if s.null() {
		s.leave()
		return false
	}
	return true
}

// choose is enter for a field of a oneof. chosen is true if a field of the oneof was already set.
func (s *scanner) choose(name string, seen *uint64, bit uint64, chosen bool) bool {
	if !s.enter(name, seen, bit) {
		return false
	}
	if chosen {
		s.fail(secondChoice)
		return false
	}
	return true
}

func (s *scanner) leave() { s.path.pop() }

// unknown handles the field whose key was read but is not in the schema: it refuses the field, or skips its value.
func (s *scanner) unknown() {
	if s.strict {
		s.fail(unknownField)
		return
	}
	s.skip()
}

// openList begins the array that is the value of the entered field. It returns false if the array is empty.
func (s *scanner) openList() bool {
	if !s.expect('[', "must be an array") || s.take(']') {
		return false
	}
	s.path.at(0)
	return true
}

// moreElements advances to the next element of an array. It returns false if there is no next element.
func (s *scanner) moreElements() bool {
	if s.take(']') || !s.expect(',', notJSON) {
		return false
	}
	s.path.next()
	return true
}

// text reads a string.
func (s *scanner) text() string {
	if s.peek() != '"' {
		s.fail("must be a string")
		return ""
	}
	return string(s.bytes())
}

// bytes reads a string up to its closing quote. A string must come next. The result is valid until the next call.
func (s *scanner) bytes() []byte {
	start := s.pos + 1
	text := s.data[start:]
	ascii := true
	for i, c := range text {
		if !special[c] {
			continue
		}
		switch {
		case c == '"':
			s.pos = start + i + 1
			if !ascii && !utf8.Valid(text[:i]) {
				s.fail(notUTF8)
				return nil
			}
			return text[:i]
		case c == '\\':
			return s.escaped(start, start+i)
		case c < ' ':
			s.fail(notJSON)
			return nil
		default:
			ascii = false
		}
	}
	s.fail(notJSON)
	return nil
}

// escaped continues bytes at the first escape.
func (s *scanner) escaped(start, i int) []byte {
	s.scratch = append(s.scratch[:0], s.data[start:i]...)
	for i < len(s.data) {
		c := s.data[i]
		switch {
		case c == '"':
			s.pos = i + 1
			if !utf8.Valid(s.scratch) {
				s.fail(notUTF8)
				return nil
			}
			return s.scratch
		case c < ' ':
			s.fail(notJSON)
			return nil
		case c != '\\':
			s.scratch = append(s.scratch, c)
			i++
			continue
		}
		if i+1 == len(s.data) {
			break
		}
		i += 2
		switch c := s.data[i-1]; c {
		case '"', '\\', '/':
			s.scratch = append(s.scratch, c)
		case 'b':
			s.scratch = append(s.scratch, '\b')
		case 'f':
			s.scratch = append(s.scratch, '\f')
		case 'n':
			s.scratch = append(s.scratch, '\n')
		case 'r':
			s.scratch = append(s.scratch, '\r')
		case 't':
			s.scratch = append(s.scratch, '\t')
		case 'u':
			r, used := s.codePoint(i)
			if used == 0 {
				s.fail("has an escape that stands for no character")
				return nil
			}
			i += used
			s.scratch = utf8.AppendRune(s.scratch, r)
		default:
			s.fail(notJSON)
			return nil
		}
	}
	s.fail(notJSON)
	return nil
}

// codePoint reads the digits of a \u escape at i, including the second half of a surrogate pair. used is 0 if the digits
// are invalid.
func (s *scanner) codePoint(i int) (r rune, used int) {
	high, ok := hex4(s.data[i:])
	if !ok {
		return 0, 0
	}
	if !utf16.IsSurrogate(high) {
		return high, 4
	}
	if len(s.data)-i < 10 || s.data[i+4] != '\\' || s.data[i+5] != 'u' {
		return 0, 0
	}
	low, ok := hex4(s.data[i+6:])
	if r = utf16.DecodeRune(high, low); !ok || r == utf8.RuneError {
		return 0, 0
	}
	return r, 10
}

func hex4(digits []byte) (rune, bool) {
	if len(digits) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range digits[:4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// integer reads a whole number as protobuf JSON writes it: digits, with or without quotes. Protobuf JSON also allows
// exponents and zero fractions, but no encoder writes them.
func (s *scanner) integer() (digits []byte) {
	const whole = "must be a whole number"
	if c := s.peek(); c == '"' {
		digits = s.bytes()
	} else {
		start := s.pos
		for s.pos < len(s.data) && (s.data[s.pos] == '-' || s.data[s.pos] >= '0' && s.data[s.pos] <= '9') {
			s.pos++
		}
		digits = s.data[start:s.pos]
		// A fraction or an exponent would follow here.
		if s.pos < len(s.data) && (s.data[s.pos] == '.' || s.data[s.pos]|0x20 == 'e') {
			digits = nil
		}
	}
	bare := digits
	if len(bare) > 0 && bare[0] == '-' {
		bare = bare[1:]
	}
	if len(bare) == 0 || len(bare) > 20 || (bare[0] == '0' && len(bare) > 1) {
		s.fail(whole)
		return nil
	}
	return digits
}

func (s *scanner) uint(limit uint64) uint64 {
	digits := s.integer()
	if s.err != nil {
		return 0
	}
	n, err := strconv.ParseUint(string(digits), 10, 64)
	if err != nil || n > limit {
		s.fail("must be a whole number from 0 to " + strconv.FormatUint(limit, 10))
		return 0
	}
	return n
}

func (s *scanner) uint64() uint64 { return s.uint(math.MaxUint64) }
func (s *scanner) uint32() uint32 { return uint32(s.uint(math.MaxUint32)) }

func (s *scanner) int(bits int) int64 {
	digits := s.integer()
	if s.err != nil {
		return 0
	}
	n, err := strconv.ParseInt(string(digits), 10, bits)
	if err != nil {
		s.fail("must be a whole number of " + strconv.Itoa(bits) + " bits")
		return 0
	}
	return n
}

func (s *scanner) int64() int64 { return s.int(64) }
func (s *scanner) int32() int32 { return int32(s.int(32)) }

func (s *scanner) bool() bool {
	switch {
	case s.peek() == 't' && s.literal("true"):
		return true
	case s.peek() == 'f' && s.literal("false"):
		return false
	}
	s.fail("must be true or false")
	return false
}

// enum reads a value of an enum, by its name or its number. If the scanner is strict, it refuses a value that this
// version does not know. Otherwise it returns an unknown number, and skips an unknown name with known set to false.
func (s *scanner) enum(byName map[string]int32, byNumber map[int32]string) (n int32, known bool) {
	if s.peek() == '"' {
		n, known = byName[string(s.bytes())]
	} else if v := s.int64(); v == int64(int32(v)) {
		n = int32(v)
		_, known = byNumber[n]
		known = known || !s.strict
	}
	if !known && s.strict {
		s.fail(unknownValue)
	}
	return n, known
}

// base64 reads bytes in the standard or the URL alphabet, with or without padding.
func (s *scanner) base64() []byte {
	if s.peek() != '"' {
		s.fail("must be a string")
		return nil
	}
	text := s.bytes()
	encoding := base64.StdEncoding
	switch padded := len(text)%4 == 0; {
	case bytes.ContainsAny(text, "-_") && padded:
		encoding = base64.URLEncoding
	case bytes.ContainsAny(text, "-_"):
		encoding = base64.RawURLEncoding
	case !padded:
		encoding = base64.RawStdEncoding
	}
	out, err := encoding.AppendDecode(make([]byte, 0, encoding.DecodedLen(len(text))), text)
	if err != nil {
		s.fail("must be base64")
		return nil
	}
	return out
}

// skip skips an unknown value of any depth, without recursion.
func (s *scanner) skip() {
	var closing []byte
	for s.err == nil {
		switch c := s.peek(); c {
		case 0:
			s.fail(notJSON)
		case '{':
			s.pos++
			closing = append(closing, '}')
		case '[':
			s.pos++
			closing = append(closing, ']')
		case '}', ']':
			if len(closing) == 0 || closing[len(closing)-1] != c {
				s.fail(notJSON)
				return
			}
			s.pos++
			closing = slices.Delete(closing, len(closing)-1, len(closing))
		case '"':
			s.bytes()
		case ',', ':':
			if len(closing) == 0 {
				s.fail(notJSON)
				return
			}
			s.pos++
			continue
		default:
			if !s.word() {
				s.fail(notJSON)
			}
		}
		if len(closing) == 0 {
			return
		}
	}
}

// word skips a number or a literal; the content of unknown fields does not matter.
func (s *scanner) word() bool {
	start := s.pos
	for s.pos < len(s.data) {
		c := s.data[s.pos]
		if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') && c != '+' && c != '-' && c != '.' {
			break
		}
		s.pos++
	}
	return s.pos > start
}
