package conversation

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/protocol"
)

// User ids. A plain id consists of the characters A-Z a-z 0-9 _ -. Token issuers also use other names: e-mail addresses,
// URLs, DIDs, auth0|x. MapUser maps each such name to a user id: it writes every byte that is not a plain character as ~
// and two upper-case hex digits. For example, auth0|x becomes auth0~7Cx. A plain id contains no ~, so MapUser keeps it
// unchanged, and no two names get the same id. OriginalUser maps back.

const (
	escape    = '~'
	hexDigits = "0123456789ABCDEF"
)

// UserRule is the text of ValidUser's rule for error messages.
var UserRule = fmt.Sprintf("must be 1 to %d characters A-Z a-z 0-9 _ -, with ~ and two hex digits (0-9 A-F) for each other byte", protocol.MaxIDBytes)

// Errors for a name that cannot be mapped to a user id, for errors.Is. Their texts do not contain the name.
var (
	ErrUserEmpty       = errors.New("is empty")
	ErrUserUnprintable = errors.New("has characters that cannot be printed")
	ErrUserTooLong     = fmt.Errorf("is too long for a user id: %d characters at most, and each other than A-Z a-z 0-9 _ - counts three for each of its bytes", protocol.MaxIDBytes)
)

// ValidUser reports whether s can be a user or device id: 1 to 64 characters, a plain id or the mapped form of another text.
func ValidUser(s string) bool {
	if len(s) == 0 || len(s) > protocol.MaxIDBytes {
		return false
	}
	for i := range len(s) {
		if !isPlain(s[i]) {
			_, mapped := unmap(s)
			return mapped
		}
	}
	return true
}

// LevelOfUsers returns the lowest level at which commands may contain these users. Builds that know only level 1 refuse
// mapped ids.
func LevelOfUsers(ids ...string) Level {
	for _, id := range ids {
		if strings.IndexByte(id, escape) >= 0 {
			return mappedUsers
		}
	}
	return MinLevel
}

// isPlain reports whether a character is written unchanged in a user id.
func isPlain(c byte) bool {
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-'
}

// MapUser returns the user id for the name that an issuer gives a user: the name itself if it is a plain id. Different names
// get different ids. An error is one of ErrUserEmpty, ErrUserUnprintable and ErrUserTooLong.
func MapUser(name string) (ids.User, error) {
	if name == "" {
		return "", ErrUserEmpty
	}
	if !printable(name) {
		return "", ErrUserUnprintable
	}
	size := len(name)
	for i := range len(name) {
		if !isPlain(name[i]) {
			size += 2
		}
	}
	switch {
	case size > protocol.MaxIDBytes:
		return "", ErrUserTooLong
	case size == len(name):
		return ids.User(name), nil
	}
	id := make([]byte, 0, size)
	for i := range len(name) {
		if c := name[i]; isPlain(c) {
			id = append(id, c)
		} else {
			id = append(id, escape, hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return ids.User(id), nil
}

// ParseUser returns the user id for a name that a person typed: a plain or mapped user id, or the name that the issuer
// gives the user.
func ParseUser(typed string) (ids.User, error) {
	if ValidUser(typed) {
		return ids.User(typed), nil
	}
	return MapUser(typed)
}

// OriginalUser returns the name that a user id was mapped from. If the id is plain or not valid, it returns the id
// itself. The result is for display: it may contain any printable character.
func OriginalUser(id ids.User) string {
	if len(id) <= protocol.MaxIDBytes && strings.IndexByte(string(id), escape) >= 0 {
		if name, mapped := unmap(string(id)); mapped {
			return name
		}
	}
	return string(id)
}

// unmap returns the name that was mapped to an id; false if MapUser never returns this id.
func unmap(id string) (string, bool) {
	name, escaped := make([]byte, 0, len(id)), false
	for i := 0; i < len(id); i++ {
		c := id[i]
		switch {
		case isPlain(c):
		case c != escape || i+2 >= len(id):
			return "", false
		default:
			high, low := strings.IndexByte(hexDigits, id[i+1]), strings.IndexByte(hexDigits, id[i+2])
			if high < 0 || low < 0 || isPlain(byte(high<<4|low)) {
				return "", false // MapUser never writes this
			}
			c, escaped = byte(high<<4|low), true
			i += 2
		}
		name = append(name, c)
	}
	return string(name), escaped && printable(string(name))
}

// printable reports whether a text is UTF-8 without control characters, invisible characters and characters that change
// the writing direction.
func printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}
