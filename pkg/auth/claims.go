package auth

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4/json"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
)

// noType is the word for tokens without a type in Config.TokenTypes.
const noType = "none"

// maxNameBytes is the maximum length of a display name; a longer name is cut.
const maxNameBytes = 256

// lastExpiry replaces every later expiry, because later times cannot be represented everywhere.
var lastExpiry = time.Date(9999, time.December, 31, 23, 59, 59, 0, time.UTC)

// typesOf returns the accepted types in the normal form of typeOf.
func typesOf(accepted []string) []string {
	types := make([]string, len(accepted))
	for i, t := range accepted {
		if t != noType {
			types[i] = typeOf(t)
		}
	}
	return types
}

// typeOf returns a type in the form for comparison (RFC 7515, section 4.1.9): in lower case, without the prefix
// application/.
func typeOf(typ string) string {
	return strings.TrimPrefix(strings.ToLower(strings.TrimSpace(typ)), "application/")
}

// checkType checks the typ field of a header; nil if the header has none.
func (v *Verifier) checkType(typ any) error {
	text, isText := typ.(string)
	if typ != nil && !isText {
		return fmt.Errorf("%w: its type (typ) is not text", ErrMalformed)
	}
	if !slices.Contains(v.types, typeOf(text)) {
		return ErrType
	}
	return nil
}

// read checks the claims of a token against the configuration. It does not check the signature.
func (v *Verifier) read(payload []byte) (Claims, error) {
	var claims jwt.Claims
	if err := json.Unmarshal(payload, &claims); err != nil {
		return Claims{}, fmt.Errorf("%w: its claims cannot be read", ErrMalformed)
	}
	if err := v.check(&claims); err != nil {
		return Claims{}, err
	}
	read := Claims{IssuedAt: claims.IssuedAt.Time(), ID: claims.ID}
	if claims.Expiry != nil {
		read.Expires = claims.Expiry.Time()
		if read.Expires.After(lastExpiry) {
			read.Expires = lastExpiry.In(read.Expires.Location())
		}
	}
	if claims.IssuedAt != nil && read.IssuedAt.Before(time.Unix(1, 0)) {
		read.IssuedAt = time.Unix(1, 0) // before every revocation, and representable
	}
	return read, v.identify(payload, &claims, &read)
}

// check checks the standard claims, except for the user.
func (v *Verifier) check(claims *jwt.Claims) error {
	now := v.now()
	switch {
	case claims.Expiry == nil && !v.cfg.AllowNoExpiry:
		return fmt.Errorf("%w: it has no expiry (exp)", ErrMalformed)
	case claims.Expiry != nil && !now.Add(-v.cfg.Leeway).Before(claims.Expiry.Time()):
		return ErrExpired
	case claims.NotBefore != nil && now.Add(v.cfg.Leeway).Before(claims.NotBefore.Time()):
		return ErrNotYetValid
	case claims.IssuedAt != nil && now.Add(v.cfg.Leeway).Before(claims.IssuedAt.Time()):
		return fmt.Errorf("%w: it was issued in the future (iat)", ErrNotYetValid)
	case v.cfg.Audience != "" && !slices.Contains(claims.Audience, v.cfg.Audience):
		return ErrAudience
	case v.cfg.Issuer != "" && claims.Issuer != v.cfg.Issuer:
		return ErrIssuer
	case v.tooLong(claims, now):
		return ErrLifetime
	}
	return nil
}

// tooLong reports whether a token's lifetime is above the limit. If the token has no iat, its lifetime is measured from
// now.
func (v *Verifier) tooLong(claims *jwt.Claims, now time.Time) bool {
	if v.cfg.MaxLifetime == 0 {
		return false
	}
	begin := now.Add(v.cfg.Leeway)
	if claims.IssuedAt != nil {
		begin = claims.IssuedAt.Time()
	}
	return claims.Expiry.Time().After(begin.Add(v.cfg.MaxLifetime))
}

// identify reads the user, the device and the display name from the configured claims.
func (v *Verifier) identify(payload []byte, standard *jwt.Claims, read *Claims) (err error) {
	all := map[string]any{"sub": standard.Subject}
	if v.cfg.UserClaim != "sub" || v.cfg.DeviceClaim != "" || v.cfg.NameClaim != "" {
		all = map[string]any{}
		if json.Unmarshal(payload, &all) != nil {
			return fmt.Errorf("%w: its claims cannot be read", ErrMalformed)
		}
	}
	user, isText := all[v.cfg.UserClaim].(string)
	if !isText {
		return fmt.Errorf("%w: its claim %s is missing or not text", ErrSubject, v.cfg.UserClaim)
	}
	if read.User, err = conversation.MapUser(user); err != nil {
		return fmt.Errorf("%w: its claim %s %w; choose another claim with --auth.user-claim", ErrSubject, v.cfg.UserClaim, err)
	}
	if v.cfg.DeviceClaim != "" && all[v.cfg.DeviceClaim] != nil {
		name, _ := all[v.cfg.DeviceClaim].(string)
		device, err := conversation.MapUser(name) // a device id has the form of a user id
		if err != nil {
			return fmt.Errorf("%w: its claim %s, which names the device, %w", ErrMalformed, v.cfg.DeviceClaim, err)
		}
		read.Device = ids.Device(device)
	}
	if v.cfg.NameClaim != "" {
		name, _ := all[v.cfg.NameClaim].(string)
		read.Name = cut(strings.ToValidUTF8(name, "\uFFFD"), maxNameBytes)
	}
	return nil
}

// cut shortens a text to at most the given number of bytes, between two characters.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	for most > 0 && !utf8.RuneStart(text[most]) {
		most--
	}
	return text[:most]
}
