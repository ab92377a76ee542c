package auth

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/runnelhq/runnel/pkg/settings"
	"github.com/runnelhq/runnel/pkg/watched"
)

// MinSecretBytes is the shortest HMAC secret: as long as the hash of HS256, so that it cannot be guessed.
const MinSecretBytes = 32

// Config determines which tokens are accepted. At least one source of keys is required; several sources can be combined.
// Files are read again when they change.
type Config struct {
	// HMACSecret verifies HS256 tokens. It is at least MinSecretBytes long. Everyone who has the secret can also sign
	// tokens. HMACSecretFile is a file with the secret, to use instead.
	HMACSecret     string `help:"Secret that verifies HS256 tokens, at least 32 bytes." secret:""`
	HMACSecretFile string `name:"hmac-secret-file" help:"File that holds the HMAC secret. Read again when it changes." secretfile:"" placeholder:"FILE"`
	// HMACSecretPrevious is the former secret during a rotation: it also verifies HS256 tokens, but signs none.
	HMACSecretPrevious     string `help:"Former HMAC secret, whose tokens are still accepted while a new one takes its place." secret:""`
	HMACSecretPreviousFile string `name:"hmac-secret-previous-file" help:"File that holds the former HMAC secret; it may be empty. Read again when it changes." secretfile:"" placeholder:"FILE"`
	// PublicKeyFiles are PEM files ("PUBLIC KEY") with RSA keys of 2048 to 8192 bits, EC keys on P-256, or Ed25519 keys.
	PublicKeyFiles []string `help:"PEM files with public keys (RSA, EC P-256, Ed25519). Read again when they change."`
	// JWKSFile is a JSON Web Key Set of public keys.
	JWKSFile string `name:"jwks-file" help:"File with a JSON Web Key Set. Read again when it changes."`
	// JWKSURL serves a JSON Web Key Set. It is read at the start, again when a token does not fit the keys, and every JWKSMaxAge.
	JWKSURL string `name:"jwks-url" help:"URL of a JSON Web Key Set, https unless it is on this machine."`
	// JWKSAllowHTTP allows a JWKSURL without TLS, whose answers anyone on the network path could forge.
	JWKSAllowHTTP bool `name:"jwks-allow-http" help:"Allow a JWKS URL without TLS on another machine."`
	// JWKSRefresh limits the fetches that tokens can cause, so that forged tokens cannot overload the issuer. Each key id
	// may cause one fetch per JWKSRefresh. All tokens together may cause one fetch per JWKSRefresh, after a burst of 4. A
	// token that needs a further fetch is refused temporarily. Defaults to 10 s.
	JWKSRefresh time.Duration `name:"jwks-refresh" help:"Shortest average time between two fetches of the JWKS because of tokens that do not fit its keys." default:"10s" range:"0,1s..24h"`
	// JWKSMaxAge is the maximum time for which a key that the issuer withdrew is still trusted, while fetches succeed.
	// Defaults to 10 min.
	JWKSMaxAge time.Duration `name:"jwks-max-age" help:"Age at which the JWKS is fetched again." default:"10m" range:"0,1s..168h"`
	// Audience must be among the token's aud. If it is empty, aud is not checked, and tokens made for other services are
	// accepted.
	Audience string `help:"Audience (aud) that tokens must have; empty accepts any."`
	// Issuer must be the token's iss. If it is empty, iss is not checked.
	Issuer string `help:"Issuer (iss) that tokens must have; empty accepts any."`
	// Leeway is how far the clocks of issuer and service may differ. Defaults to 30 s.
	Leeway time.Duration `help:"Largest allowed difference between the issuer's clock and this machine's." default:"30s" range:"0..1h"`
	// AllowNoExpiry accepts tokens without exp, which are valid until their key is withdrawn. It cannot be combined with
	// MaxLifetime.
	AllowNoExpiry bool `help:"Accept tokens without an expiry."`
	// MaxLifetime limits exp - iat, or exp - now for a token without iat. Defaults to 0: no limit.
	MaxLifetime time.Duration `help:"Longest lifetime of a token, from its issue to its expiry; longer ones are refused. 0 for no limit." range:"0,1s.."`
	// TokenTypes are the accepted types (typ). Case and the prefix application/ are ignored. The word none means tokens
	// without a type. Defaults to JWT, at+jwt and none.
	TokenTypes []string `help:"Types (typ) that tokens may have; none stands for tokens without a type." default:"JWT,at+jwt,none"`
	// UserClaim is the claim that contains the user id. An id with characters other than A-Z a-z 0-9 _ - is mapped, see
	// conversation.MapUser. Defaults to sub.
	UserClaim string `help:"Claim that holds the user id." default:"sub"`
	// DeviceClaim is the claim that contains the device id. It overrides the device id that the client chose. If the
	// setting is empty, which is the default, or the token lacks the claim, the client's choice is used.
	DeviceClaim string `help:"Claim that holds the device id; empty leaves it to the client."`
	// NameClaim is the claim that contains the display name, which operators see. Defaults to empty: no display name.
	NameClaim string `help:"Claim that holds the user's display name, which operators see; empty for none."`
}

// complete checks the settings and returns them with defaults filled in.
func (c Config) complete() (Config, error) {
	if c.Leeway == 0 {
		c.Leeway = 30 * time.Second
	}
	if len(c.TokenTypes) == 0 {
		c.TokenTypes = []string{"JWT", "at+jwt", noType}
	}
	if c.UserClaim == "" {
		c.UserClaim = "sub"
	}
	switch {
	case c.Leeway < 0:
		return c, fmt.Errorf("leeway %v is negative", c.Leeway)
	case c.MaxLifetime < 0:
		return c, fmt.Errorf("the longest lifetime %v is negative", c.MaxLifetime)
	case c.MaxLifetime > 0 && c.AllowNoExpiry:
		return c, errors.New("a longest lifetime (max-lifetime) and tokens without an expiry (allow-no-expiry) exclude each other")
	case c.HMACSecret != "" && c.HMACSecretFile != "":
		return c, errors.New("the HMAC secret and a file for it are both set; set one")
	case c.HMACSecretPrevious != "" && c.HMACSecretPreviousFile != "":
		return c, errors.New("the previous HMAC secret and a file for it are both set; set one")
	case !c.HasSecret() && (c.HMACSecretPrevious != "" || c.HMACSecretPreviousFile != ""):
		return c, errors.New("a previous HMAC secret is set, but no current one")
	}
	return c, nil
}

// Validate checks the settings without reading any file.
func (c Config) Validate() error {
	if err := settings.CheckRanges("auth.", c); err != nil {
		return err
	}
	_, err := c.complete()
	if err != nil {
		return fmt.Errorf("auth settings: %w", err)
	}
	return nil
}

// warn logs settings that accept more tokens than most installations want.
func (c Config) warn(log *slog.Logger) {
	if c.MaxLifetime == 0 {
		log.Warn("tokens are accepted whatever their lifetime; set --auth.max-lifetime to bound it")
	}
	if c.Audience == "" && (c.JWKSURL != "" || c.JWKSFile != "") {
		log.Warn("tokens that the issuer made for other services are accepted; set --auth.audience")
	}
}

// HasSecret reports whether an HMAC secret is configured. Such a secret can also sign tokens.
func (c Config) HasSecret() bool { return c.HMACSecret != "" || c.HMACSecretFile != "" }

// HasKeys reports whether a source of keys is configured.
func (c Config) HasKeys() bool {
	return c.HasSecret() || len(c.PublicKeyFiles) > 0 || c.JWKSFile != "" || c.JWKSURL != ""
}

// Secret returns the current HMAC secret; empty if none is configured.
func (c Config) Secret() (string, error) { return secretOf(c.HMACSecret, c.HMACSecretFile) }

func secretOf(value, path string) (string, error) {
	if path == "" {
		return value, nil
	}
	return watched.ReadSecret(path)
}
