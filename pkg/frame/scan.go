package frame

import (
	"encoding/base64"
	"math"
	"slices"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// scanner reads the JSON of one frame from left to right, along the schema and never deeper than it: there is no tree, no
// reflection, and nothing that input can make grow. The first error sticks; after it every method returns zero values and
// every loop ends, so that the code that decodes reads like the schema.
type scanner struct {
	data []byte
	pos  int
	// strict refuses unknown fields and values of enumerations; otherwise they are passed over.
	strict bool
	path   path
	id     uint64
	err    *Error
	// scratch holds the last text that had escapes in it.
	scratch []byte
}

// names are the fields of one message by proto number: the JSON name and the proto name. Protobuf JSON takes either.
type names [][2]string

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

// peek is the next byte that is not white space; 0 at the end and after an error.
func (s *scanner) peek() byte {
	s.space()
	if s.pos == len(s.data) || s.err != nil {
		return 0
	}
	return s.data[s.pos]
}

// take passes over the byte c if it comes next.
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

// end says that nothing may follow.
func (s *scanner) end() {
	if s.space(); s.pos != len(s.data) {
		s.fail("is followed by something else on its line")
	}
}

// null passes over a null, which stands for a field that is not set.
func (s *scanner) null() bool { return s.peek() == 'n' && s.literal("null") }

func (s *scanner) literal(word string) bool {
	if len(s.data)-s.pos < len(word) || string(s.data[s.pos:s.pos+len(word)]) != word {
		return false
	}
	s.pos += len(word)
	return true
}

const notJSON = "is not valid JSON"

// object reads an object and yields the proto number of each field that is there, at its value.
func (s *scanner) object(known names) func(yield func(int) bool) {
	return func(yield func(int) bool) {
		if !s.expect('{', "must be an object") || s.take('}') {
			return
		}
		var seen uint64
		for {
			if s.peek() != '"' {
				s.fail(notJSON)
				return
			}
			number := known.find(s.bytes())
			if !s.expect(':', notJSON) {
				return
			}
			switch {
			case number == 0 && s.strict:
				s.fail("holds a field that this version does not know")
				return
			case number == 0:
				s.skip()
			default:
				if !s.path.push(known[number][1]) {
					s.fail("is nested too deep")
					return
				}
				if seen&(1<<number) != 0 {
					s.fail("is given twice")
					return
				}
				seen |= 1 << number
				if !s.null() && !yield(number) {
					return
				}
				if s.err != nil {
					return
				}
				s.path.pop()
			}
			if s.take('}') {
				return
			}
			if !s.expect(',', notJSON) {
				return
			}
		}
	}
}

// array reads an array and yields the index of each element, at its value.
func (s *scanner) array(yield func(int) bool) {
	if !s.expect('[', "must be an array") || s.take(']') {
		return
	}
	for index := 0; ; index++ {
		s.path.at(index)
		if !yield(index) || s.err != nil || s.take(']') {
			return
		}
		if !s.expect(',', notJSON) {
			return
		}
	}
}

func (n names) find(key []byte) int {
	for number, name := range n {
		if len(key) > 0 && (string(key) == name[0] || string(key) == name[1]) {
			return number
		}
	}
	return 0
}

// text reads a string.
func (s *scanner) text() string {
	if s.peek() != '"' {
		s.fail("must be a string")
		return ""
	}
	return string(s.bytes())
}

// bytes reads a string, which must be next, up to its closing quote. What it returns is valid until the next call.
func (s *scanner) bytes() []byte {
	start := s.pos + 1
	ascii := true
	for i := start; i < len(s.data); i++ {
		switch c := s.data[i]; {
		case c == '"':
			s.pos = i + 1
			if !ascii && !utf8.Valid(s.data[start:i]) {
				s.fail("is not valid UTF-8")
				return nil
			}
			return s.data[start:i]
		case c == '\\':
			return s.escaped(start, i)
		case c < ' ':
			s.fail(notJSON)
			return nil
		case c >= utf8.RuneSelf:
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
				s.fail("is not valid UTF-8")
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

// codePoint reads the digits of a \u escape at i, and those of the second half of a surrogate pair; 0 used if they are wrong.
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

// integer reads a whole number as protobuf JSON writes it: digits, quoted or not. Protobuf JSON would also take exponents and
// fractions of zero; nobody writes those.
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

func (s *scanner) int64() int64 {
	digits := s.integer()
	if s.err != nil {
		return 0
	}
	n, err := strconv.ParseInt(string(digits), 10, 64)
	if err != nil {
		s.fail("must be a whole number of 64 bits")
		return 0
	}
	return n
}

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

// enum reads a value of an enumeration by its name or its number. A value that is not known is refused, or 0 when not strict.
func (s *scanner) enum(byName map[string]int32, byNumber map[int32]string) int32 {
	var n int32
	var known bool
	if s.peek() == '"' {
		n, known = byName[string(s.bytes())]
	} else if v := s.int64(); v == int64(int32(v)) {
		n = int32(v)
		_, known = byNumber[n]
	}
	if !known && s.strict {
		s.fail("is a value that this version does not know")
	}
	if !known {
		return 0
	}
	return n
}

// base64 reads bytes in standard base64.
func (s *scanner) base64() []byte {
	if s.peek() != '"' {
		s.fail("must be a string")
		return nil
	}
	text := s.bytes()
	out, err := base64.StdEncoding.AppendDecode(make([]byte, 0, base64.StdEncoding.DecodedLen(len(text))), text)
	if err != nil {
		s.fail("must be base64")
		return nil
	}
	return out
}

// textMap reads an object of strings.
func (s *scanner) textMap() map[string]string {
	if !s.expect('{', "must be an object") {
		return nil
	}
	m := map[string]string{}
	if s.take('}') {
		return m
	}
	for {
		if s.peek() != '"' {
			s.fail(notJSON)
			return nil
		}
		key := string(s.bytes())
		if _, twice := m[key]; twice {
			s.fail("has a key twice")
		}
		if !s.expect(':', notJSON) {
			return nil
		}
		m[key] = s.text()
		if s.take('}') || !s.expect(',', notJSON) {
			return m
		}
	}
}

// texts reads an array of strings.
func (s *scanner) texts() []string {
	var list []string
	for range s.array {
		list = append(list, s.text())
	}
	return list
}

// skip passes over a value that is not known, however deep, without recursion.
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

// word passes over a number or a literal; what it says does not matter where it is not known.
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

// raw is the value that comes next, as it is.
func (s *scanner) raw() []byte {
	s.space()
	start := s.pos
	s.skip()
	return s.data[start:s.pos]
}
