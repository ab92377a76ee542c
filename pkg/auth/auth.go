// Package auth finds out which user a token belongs to. It verifies JWTs (HS256, RS256, ES256, EdDSA) with keys from the
// configuration, from files or from a JWKS URL whose keys rotate, and mints tokens for development.
//
// It never takes the algorithm from the token, which would allow a public key to be used as a secret: each key has one
// algorithm, and a token is tried only with the keys of its algorithm. It never puts a token, or any part of one, into an
// error or a log. It does not decide what a user may do, and it keeps no sessions.
package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/protocol"
)

// MinSecretBytes is the length of the shortest HMAC secret: that of the hash of HS256, so that it cannot be guessed.
const MinSecretBytes = 32

// Reasons to refuse a token, for errors.Is. Their texts may be shown to the sender of the token.
var (
	ErrMalformed   = errors.New("the token is malformed")
	ErrSignature   = errors.New("the token is not signed by a known key")
	ErrExpired     = errors.New("the token has expired")
	ErrNotYetValid = errors.New("the token is not valid yet")
	ErrAudience    = errors.New("the token is for another audience")
	ErrIssuer      = errors.New("the token comes from an unknown issuer")
	ErrSubject     = errors.New("the token's subject is not a user id")
	// ErrKeysUnavailable means that the token may be valid, but the keys for checking it could not be fetched. The same
	// token may be accepted later.
	ErrKeysUnavailable = errors.New("the keys for checking tokens cannot be fetched")
)

// Config defines which tokens are accepted. At least one source of keys is required; several can be combined.
type Config struct {
	// HMACSecret verifies HS256 and is at least MinSecretBytes long. A holder of the secret can also sign tokens.
	HMACSecret string `help:"Secret that verifies HS256 tokens, at least 32 bytes." secret:""`
	// PublicKeyFiles are PEM files ("PUBLIC KEY") with RSA keys of 2048 to 8192 bits, EC keys on P-256, or Ed25519 keys.
	PublicKeyFiles []string `help:"PEM files with public keys (RSA, EC P-256, Ed25519)."`
	// JWKSFile is a JSON Web Key Set of public keys.
	JWKSFile string `name:"jwks-file" help:"File with a JSON Web Key Set."`
	// JWKSURL serves a JSON Web Key Set, read again when a token names an unknown key, and every JWKSMaxAge.
	JWKSURL string `name:"jwks-url" help:"URL of a JSON Web Key Set, https unless it is on this machine."`
	// JWKSAllowHTTP allows a JWKSURL without TLS, whose answer anybody on the network path could forge.
	JWKSAllowHTTP bool `name:"jwks-allow-http" help:"Allow a JWKS URL without TLS on another machine."`
	// JWKSRefresh is the least time between two fetches, so that forged tokens cannot overload the issuer with fetches.
	// Defaults to 10 s.
	JWKSRefresh time.Duration `name:"jwks-refresh" help:"Least time between two fetches of the JWKS." default:"10s"`
	// JWKSMaxAge is how long a key that the issuer withdrew is still trusted at most while fetches succeed. Defaults to 10
	// min.
	JWKSMaxAge time.Duration `name:"jwks-max-age" help:"Age at which the JWKS is fetched again." default:"10m"`
	// Audience must be among the token's aud. If empty, the audience is not checked, and tokens for other services are
	// accepted.
	Audience string `help:"Audience (aud) that tokens must have; if empty, it is not checked."`
	// Issuer must be the token's iss. Empty checks nothing.
	Issuer string `help:"Issuer (iss) that tokens must have; if empty, it is not checked."`
	// Leeway is how far the clocks of issuer and service may differ. Defaults to 30 s.
	Leeway time.Duration `help:"Largest allowed difference between the issuer's clock and this machine's." default:"30s"`
	// AllowNoExpiry accepts tokens without exp, which are valid until their key is withdrawn.
	AllowNoExpiry bool `help:"Accept tokens without an expiry."`
}

// Options are dependencies that tests and special environments replace. The zero value is right for services.
type Options struct {
	// Now defaults to time.Now.
	Now func() time.Time
	// HTTPClient fetches the JWKS. Defaults to one that follows no redirects and keeps no connections.
	HTTPClient *http.Client
	// Log receives messages about keys that cannot be used or fetched. Defaults to discarding.
	Log *slog.Logger
}

// Claims is the content of a verified token.
type Claims struct {
	// User is a valid user id.
	User string
	// Expires and IssuedAt are zero if the token does not contain them.
	Expires, IssuedAt time.Time
	// ID is the token's jti; empty if it has none.
	ID string
}

// Verifier verifies tokens. It is safe for concurrent use.
type Verifier struct {
	cfg    Config
	now    func() time.Time
	static []key
	remote *remote // nil without a JWKS URL
}

// New reads the keys of the configuration. A JWKS URL is fetched when the first token needs it, or by Ready, so that a
// service starts while its issuer is unavailable. The caller ends it with Close.
func New(cfg Config, opts Options) (*Verifier, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Leeway == 0 {
		cfg.Leeway = 30 * time.Second
	}
	if cfg.Leeway < 0 {
		return nil, fmt.Errorf("leeway %v is negative", cfg.Leeway)
	}
	static, err := staticKeys(cfg, opts.Log)
	if err != nil {
		return nil, err
	}
	v := &Verifier{cfg: cfg, now: opts.Now, static: static}
	if cfg.JWKSURL != "" {
		if v.remote, err = newRemote(cfg, opts); err != nil {
			return nil, err
		}
	}
	if len(v.static) == 0 && v.remote == nil {
		return nil, errors.New("no key for verifying tokens is configured: set RUNNEL_AUTH_HMAC_SECRET or RUNNEL_AUTH_HMAC_SECRET_FILE, or --auth.public-key-files, --auth.jwks-file or --auth.jwks-url")
	}
	return v, nil
}

// Close ends a running fetch and waits for it. Tokens can still be verified, with the keys that are known.
func (v *Verifier) Close() {
	if v.remote != nil {
		v.remote.close()
	}
}

// Ready reports whether tokens can be verified: with a JWKS URL, whether its keys have ever been fetched. If not, it tries
// to fetch them, within the usual limit.
func (v *Verifier) Ready(ctx context.Context) error {
	if v.remote == nil || v.remote.loaded() {
		return nil
	}
	v.remote.refresh(ctx)
	if !v.remote.loaded() {
		return ErrKeysUnavailable
	}
	return nil
}

// Verify checks a token and returns its claims. The error is, or wraps, one of the errors of this package, or that of ctx,
// which matters only while keys are fetched.
func (v *Verifier) Verify(ctx context.Context, token string) (Claims, error) {
	if len(token) > protocol.MaxTokenBytes {
		return Claims{}, fmt.Errorf("%w: it is longer than %d bytes", ErrMalformed, protocol.MaxTokenBytes)
	}
	if !wellSpelled(token) {
		return Claims{}, ErrMalformed
	}
	signed, err := jose.ParseSignedCompact(token, algorithms)
	if err != nil {
		// The library's error text may quote the token.
		if _, foreign := errors.AsType[*jose.ErrUnexpectedSignatureAlgorithm](err); foreign {
			return Claims{}, fmt.Errorf("%w: its algorithm is not one of HS256, RS256, ES256 and EdDSA", ErrSignature)
		}
		return Claims{}, ErrMalformed
	}
	if _, critical := signed.Signatures[0].Protected.ExtraHeaders["crit"]; critical {
		return Claims{}, fmt.Errorf("%w: it requires extensions that are not supported", ErrMalformed)
	}
	payload, err := v.payload(ctx, signed)
	if err != nil {
		return Claims{}, err
	}
	var claims jwt.Claims
	if err := json.Unmarshal(payload, &claims); err != nil {
		return Claims{}, fmt.Errorf("%w: its claims cannot be read", ErrMalformed)
	}
	return v.check(&claims)
}

// wellSpelled reports whether a token has only the characters of a compact JWT. Decoders skip line breaks, but no issuer
// writes them.
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
func (v *Verifier) payload(ctx context.Context, signed *jose.JSONWebSignature) ([]byte, error) {
	payload, _ := verifyWith(v.static, signed)
	if payload != nil {
		return payload, nil
	}
	header := signed.Signatures[0].Protected
	if v.remote == nil || header.Algorithm == string(jose.HS256) { // a published key cannot be a secret
		return nil, ErrSignature
	}
	payload, named := verifyWith(v.remote.current(ctx), signed)
	if payload != nil {
		return payload, nil
	}
	if named {
		return nil, ErrSignature // a newer set would not change that
	}
	v.remote.refresh(ctx)
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("fetching keys: %w", err)
	}
	payload, named = verifyWith(v.remote.current(ctx), signed)
	switch {
	case payload != nil:
		return payload, nil
	case !named && v.remote.failing():
		return nil, ErrKeysUnavailable
	default:
		return nil, ErrSignature
	}
}

// check checks the claims of a token with a valid signature against the configuration.
func (v *Verifier) check(claims *jwt.Claims) (Claims, error) {
	now := v.now()
	switch {
	case claims.Expiry == nil && !v.cfg.AllowNoExpiry:
		return Claims{}, fmt.Errorf("%w: it has no expiry (exp)", ErrMalformed)
	case claims.Expiry != nil && !now.Add(-v.cfg.Leeway).Before(claims.Expiry.Time()):
		return Claims{}, ErrExpired
	case claims.NotBefore != nil && now.Add(v.cfg.Leeway).Before(claims.NotBefore.Time()):
		return Claims{}, ErrNotYetValid
	case claims.IssuedAt != nil && now.Add(v.cfg.Leeway).Before(claims.IssuedAt.Time()):
		return Claims{}, fmt.Errorf("%w: it was issued in the future (iat)", ErrNotYetValid)
	case v.cfg.Audience != "" && !slices.Contains(claims.Audience, v.cfg.Audience):
		return Claims{}, ErrAudience
	case v.cfg.Issuer != "" && claims.Issuer != v.cfg.Issuer:
		return Claims{}, ErrIssuer
	case !conversation.ValidUser(claims.Subject):
		return Claims{}, ErrSubject
	}
	return Claims{User: claims.Subject, Expires: claims.Expiry.Time(), IssuedAt: claims.IssuedAt.Time(), ID: claims.ID}, nil
}
