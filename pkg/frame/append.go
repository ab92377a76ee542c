package frame

import (
	"encoding/base64"
	"slices"
	"strconv"
	"unicode/utf8"
)

// This file contains the shared code of the generated JSON encoders. They write protobuf JSON as protojson does: lowerCamel
// names, 64-bit integers as strings, bytes as base64, enums by name, map entries by key, and no fields at their default.

// appendComma writes a comma, unless it would be the first character of an object or array.
func appendComma(dst []byte) []byte {
	if last := dst[len(dst)-1]; last == '{' || last == '[' {
		return dst
	}
	return append(dst, ',')
}

// appendKey begins a field. key includes the quotes and the colon.
func appendKey(dst []byte, key string) []byte {
	return append(appendComma(dst), key...)
}

// mapKeys is the number of map keys that are sorted without an allocation. It is the maximum number of entries of a
// message's metadata.
const mapKeys = 16

// sortedKeys appends the keys of a map to keys and sorts them.
func sortedKeys[V any](m map[string]V, keys []string) []string {
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

func appendUint64(dst []byte, value uint64) []byte {
	return append(strconv.AppendUint(append(dst, '"'), value, 10), '"')
}

func appendInt64(dst []byte, value int64) []byte {
	return append(strconv.AppendInt(append(dst, '"'), value, 10), '"')
}

func appendUint32(dst []byte, value uint32) []byte { return strconv.AppendUint(dst, uint64(value), 10) }

func appendInt32(dst []byte, value int32) []byte { return strconv.AppendInt(dst, int64(value), 10) }

func appendBool(dst []byte, value bool) []byte { return strconv.AppendBool(dst, value) }

// appendEnum writes the name of a value, or its number if this version has no name for it.
func appendEnum(dst []byte, value int32, names map[int32]string) []byte {
	name, known := names[value]
	if !known {
		return strconv.AppendInt(dst, int64(value), 10)
	}
	dst = append(append(dst, '"'), name...)
	return append(dst, '"')
}

func appendBase64(dst, value []byte) []byte {
	return append(base64.StdEncoding.AppendEncode(append(dst, '"'), value), '"')
}

// special marks the bytes that must be escaped or checked in a JSON string: all except plain ASCII text.
var special = func() (table [256]bool) {
	for c := range table {
		table[c] = c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf
	}
	return table
}()

// appendText quotes text. Bytes that are not UTF-8 become U+FFFD.
func appendText(dst []byte, text string) []byte {
	dst = append(dst, '"')
	for {
		plain := 0
		for plain < len(text) && !special[text[plain]] {
			plain++
		}
		dst = append(dst, text[:plain]...)
		if plain == len(text) {
			return append(dst, '"')
		}
		text = text[plain:]
		if text[0] < utf8.RuneSelf {
			dst = appendEscape(dst, text[0])
			text = text[1:]
			continue
		}
		r, size := utf8.DecodeRuneInString(text)
		dst = utf8.AppendRune(dst, r)
		text = text[size:]
	}
}

// appendEscape writes a character that must be escaped in a JSON string.
func appendEscape(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\b':
		return append(dst, '\\', 'b')
	case '\f':
		return append(dst, '\\', 'f')
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	default:
		const hex = "0123456789abcdef"
		return append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
	}
}
