package auth

import (
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/runnelhq/runnel/pkg/conversation"
)

// Mint makes a token for development, valid from now for ttl, signed with HS256. Empty audience and issuer are left out.
// Tokens for production come from the service that manages the users.
func Mint(secret []byte, user string, ttl time.Duration, now time.Time, audience, issuer string) (string, error) {
	switch {
	case len(secret) < MinSecretBytes:
		return "", fmt.Errorf("minting a token: the secret is shorter than %d bytes", MinSecretBytes)
	case !conversation.ValidUser(user):
		return "", fmt.Errorf("minting a token: %w", ErrSubject)
	case ttl < time.Second:
		return "", fmt.Errorf("minting a token: it would be valid for %v; the minimum is one second", ttl)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: secret}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", fmt.Errorf("minting a token: %w", err)
	}
	claims := jwt.Claims{
		Subject: user, Issuer: issuer,
		IssuedAt: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(ttl)),
	}
	if audience != "" {
		claims.Audience = jwt.Audience{audience}
	}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		return "", fmt.Errorf("minting a token: %w", err)
	}
	return token, nil
}
