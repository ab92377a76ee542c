// Package auth finds out which user a token belongs to. It verifies JWTs (HS256, RS256, ES256, EdDSA) with keys from the
// configuration, from files or from a JWKS URL whose keys rotate, and mints tokens for development.
//
// It never takes the algorithm from the token, because an attacker could then use a public key as an HMAC secret. Each
// key has one algorithm, and a token is verified only with keys of its algorithm. It never puts a token, or any part of
// one, into an error or a log. It does not decide what a user may do, and it keeps no sessions.
package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/protocol"
	"github.com/runnelhq/runnel/pkg/watched"
)

// Reasons to refuse a token, for errors.Is. The texts of these errors, and of errors that wrap them, may be shown to the
// client.
var (
	ErrMalformed   = errors.New("the token is malformed")
	ErrSignature   = errors.New("the token is not signed by a known key")
	ErrExpired     = errors.New("the token has expired")
	ErrNotYetValid = errors.New("the token is not valid yet")
	ErrAudience    = errors.New("the token is meant for another service")
	ErrIssuer      = errors.New("the token comes from an unknown issuer")
	ErrSubject     = errors.New("the token does not name a usable user id")
	ErrLifetime    = errors.New("the token is valid for longer than this server allows")
	ErrType        = errors.New("the token is of a type that this server does not accept")
	// ErrKeysUnavailable means that the keys needed to verify the token could not be fetched. The token may be valid; the
	// same token may be accepted later.
	ErrKeysUnavailable = errors.New("the keys that tokens are checked with are not available")
)

// Passing reports whether a refusal is temporary: the same token may be accepted later, or a new token of the same issuer
// now.
func Passing(err error) bool {
	return errors.Is(err, ErrExpired) || errors.Is(err, ErrNotYetValid) || errors.Is(err, ErrKeysUnavailable)
}

// Options are for tests and unusual environments. The zero value is right for services.
type Options struct {
	// Now defaults to time.Now.
	Now func() time.Time
	// HTTPClient fetches the JWKS. Defaults to a client that follows no redirects and keeps no connections.
	HTTPClient *http.Client
	// Log receives warnings about settings, and about keys that cannot be used or fetched. Defaults to discarding.
	Log *slog.Logger
	// Development means that the only key is the development key of this machine. Settings that matter only in production
	// then cause no warnings.
	Development bool
}

// Claims is the content of a verified token.
type Claims struct {
	// User is the token's user, mapped to a valid user id by conversation.MapUser.
	User ids.User
	// Device is the device id in the token; empty if no device claim is configured, or if the token has none.
	Device ids.Device
	// Name is the user's display name; empty if no name claim is configured, or if the token has none.
	Name string
	// Expires and IssuedAt are zero if the token does not contain them. Expires is before the year 10000.
	Expires, IssuedAt time.Time
	// ID is the token's jti; empty if the token has none.
	ID string
}

// Verifier verifies tokens. It is safe for concurrent use.
type Verifier struct {
	cfg    Config
	now    func() time.Time
	types  []string // accepted types, in lower case; an empty text means a token without a type
	static *watched.Files[[]key]
	remote *remote // nil without a JWKS URL
}

// New reads the keys of the configuration. It fetches a JWKS URL in the background, so that a service can start while its
// issuer is unavailable; see Ready. The caller ends the verifier with Close.
func New(cfg Config, opts Options) (*Verifier, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	static, err := staticKeys(cfg, opts.Log)
	if err != nil {
		return nil, err
	}
	if len(static.Current()) == 0 && cfg.JWKSURL == "" {
		return nil, errors.New("no key for verifying tokens is configured: set RUNNEL_AUTH_HMAC_SECRET or RUNNEL_AUTH_HMAC_SECRET_FILE, or --auth.public-key-files, --auth.jwks-file or --auth.jwks-url")
	}
	v := &Verifier{cfg: cfg, now: opts.Now, types: typesOf(cfg.TokenTypes), static: static}
	if cfg.JWKSURL != "" {
		if v.remote, err = newRemote(cfg, opts); err != nil {
			return nil, err
		}
		v.remote.start()
	}
	if !opts.Development {
		cfg.warn(opts.Log)
	}
	return v, nil
}

// Close ends a running fetch and waits for it. Tokens can still be verified with the known keys.
func (v *Verifier) Close() {
	if v.remote != nil {
		v.remote.close()
	}
}

// Ready reports whether tokens can be verified: with a JWKS URL, whether its keys were ever fetched. If not, it tries to
// fetch them, within the usual limit.
func (v *Verifier) Ready(ctx context.Context) error {
	if v.remote == nil {
		return nil
	}
	return v.remote.ready(ctx)
}

// Verify checks a token and returns its claims. The error is, or wraps, one of the errors of this package, or ctx's
// error. ctx matters only while keys are fetched.
func (v *Verifier) Verify(ctx context.Context, token string) (Claims, error) {
	signed, err := v.parse(token)
	if err != nil {
		return Claims{}, err
	}
	payload, err := v.payload(ctx, signed)
	if err != nil {
		return Claims{}, err
	}
	return v.read(payload)
}

// parse checks the form of a token, and the fields of its header that can be checked without a key.
func (v *Verifier) parse(token string) (*jose.JSONWebSignature, error) {
	if len(token) > protocol.MaxTokenBytes {
		return nil, fmt.Errorf("%w: it is longer than %d bytes", ErrMalformed, protocol.MaxTokenBytes)
	}
	if !wellSpelled(token) {
		return nil, ErrMalformed
	}
	signed, err := jose.ParseSignedCompact(token, algorithms)
	if err != nil {
		// Do not return the library's error: its text may quote the token.
		if _, foreign := errors.AsType[*jose.ErrUnexpectedSignatureAlgorithm](err); foreign {
			return nil, fmt.Errorf("%w: its algorithm is not one of HS256, RS256, ES256 and EdDSA", ErrSignature)
		}
		return nil, ErrMalformed
	}
	header := signed.Signatures[0].Protected.ExtraHeaders
	if _, critical := header["crit"]; critical {
		return nil, fmt.Errorf("%w: it asks for extensions that are not supported", ErrMalformed)
	}
	return signed, v.checkType(header[jose.HeaderType])
}

// wellSpelled reports whether a token contains only the characters of a compact JWT. Decoders also skip line breaks, but
// no issuer writes them.
func wellSpelled(token string) bool {
	for i := range len(token) {
		c := token[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

// payload finds the key that signed the token and returns the signed payload.
func (v *Verifier) payload(ctx context.Context, signed *jose.JSONWebSignature) (payload []byte, err error) {
	if payload = verifyWith(v.static.Current(), signed); payload != nil {
		return payload, nil
	}
	header := signed.Signatures[0].Protected
	if v.remote == nil || header.Algorithm == string(jose.HS256) { // a published key cannot be a secret
		return nil, ErrSignature
	}
	err = v.remote.find(ctx, header.KeyID, func(keys []key) bool {
		payload = verifyWith(keys, signed)
		return payload != nil
	}, func() error {
		// A token that would be refused anyway must not cause a fetch. Its unverified claims are used only for this
		// check.
		_, err := v.read(signed.UnsafePayloadWithoutVerification())
		return err
	})
	return payload, err
}
