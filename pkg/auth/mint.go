package auth

import (
	"fmt"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
)

// Mint makes a token for development, signed with HS256, valid from now for ttl. Audience and issuer are left out if they
// are empty. user is a user id or the name that maps to the user id. In production, the service that knows the users
// issues the tokens.
func Mint(secret []byte, user ids.User, ttl time.Duration, now time.Time, audience, issuer string) (string, error) {
	return Config{Audience: audience, Issuer: issuer}.Mint(secret, user, ttl, now)
}

// Mint makes a token like the function Mint, with the claims that a verifier with this configuration requires.
func (c Config) Mint(secret []byte, user ids.User, ttl time.Duration, now time.Time) (string, error) {
	id, err := conversation.ParseUser(string(user))
	switch {
	case len(secret) < MinSecretBytes:
		return "", fmt.Errorf("minting a token: the secret is shorter than %d bytes", MinSecretBytes)
	case err != nil:
		return "", fmt.Errorf("minting a token: %w: it %w", ErrSubject, err)
	case ttl < time.Second:
		return "", fmt.Errorf("minting a token: it would be valid for %v; the minimum is one second", ttl)
	case c.MaxLifetime > 0 && ttl > c.MaxLifetime:
		return "", fmt.Errorf("minting a token: it would be good for %v, and --auth.max-lifetime is %v", ttl, c.MaxLifetime)
	}
	options := &jose.SignerOptions{}
	if types := typesOf(c.TokenTypes); len(types) == 0 || slices.Contains(types, "jwt") {
		options.WithType("JWT")
	} else if types[0] != "" {
		options.WithType(jose.ContentType(types[0]))
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: secret}, options)
	if err != nil {
		return "", fmt.Errorf("minting a token: %w", err)
	}
	name := conversation.OriginalUser(id)
	claims := jwt.Claims{
		Subject: name, Issuer: c.Issuer,
		IssuedAt: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(ttl)),
	}
	if c.Audience != "" {
		claims.Audience = jwt.Audience{c.Audience}
	}
	builder := jwt.Signed(signer).Claims(claims)
	if c.UserClaim != "" && c.UserClaim != "sub" {
		builder = builder.Claims(map[string]any{c.UserClaim: name})
	}
	token, err := builder.Serialize()
	if err != nil {
		return "", fmt.Errorf("minting a token: %w", err)
	}
	return token, nil
}
