package auth_test

import (
	"bytes"
	"log/slog"
	"math"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/ids"
)

func TestLongestLifetime(t *testing.T) {
	v := newVerifier(t, auth.Config{HMACSecret: secret, MaxLifetime: time.Hour})
	for name, test := range map[string]struct {
		iat, exp any
		want     error
	}{
		"at the limit":                    {now.Unix(), now.Unix() + 3600, nil},
		"above the limit":                 {now.Unix(), now.Unix() + 3601, auth.ErrLifetime},
		"old, and above the limit":        {now.Unix() - 3590, now.Unix() + 11, auth.ErrLifetime},
		"in a hundred years":              {now.Unix(), now.AddDate(100, 0, 0).Unix(), auth.ErrLifetime},
		"after the end of time":           {now.Unix(), int64(1) << 61, auth.ErrLifetime},
		"issued before time":              {-(int64(1) << 61), now.Unix() + 60, auth.ErrLifetime},
		"no time of issue":                {nil, now.Unix() + 3600, nil},
		"no time of issue, with leeway":   {nil, now.Unix() + 3630, nil},
		"no time of issue, above":         {nil, now.Unix() + 3631, auth.ErrLifetime},
		"expired, and above the limit":    {now.Unix() - 7200, now.Unix() - 60, auth.ErrExpired},
		"issued in the future, too large": {int64(1) << 61, int64(1)<<61 + 60, auth.ErrNotYetValid},
	} {
		claims := with("iat", test.iat)
		claims["exp"] = test.exp
		_, err := v.Verify(t.Context(), sign(t, jose.HS256, []byte(secret), "", claims))
		require.ErrorIs(t, err, test.want, name)
	}
}

// Whatever times a token contains, the times in its claims can be represented in milliseconds and as a date.
func TestTimesCanBeRepresented(t *testing.T) {
	v := newVerifier(t, auth.Config{HMACSecret: secret})
	for _, exp := range []int64{now.Unix() + 60, 253402300799, 253402300800, math.MaxInt64/1000 + 1, 1 << 61} {
		for _, iat := range []int64{now.Unix(), 1, 0, -1, -(1 << 61)} {
			claims := with("exp", exp)
			claims["iat"] = iat
			got, err := v.Verify(t.Context(), sign(t, jose.HS256, []byte(secret), "", claims))
			require.NoError(t, err)
			require.Equal(t, min(exp, 253402300799)*1000, got.Expires.UnixMilli())
			require.Equal(t, max(iat, 1)*1000, got.IssuedAt.UnixMilli())
			_, err = got.Expires.MarshalText()
			require.NoError(t, err)
		}
	}
}

func typed(t *testing.T, typ any) string {
	t.Helper()
	options := &jose.SignerOptions{}
	if typ != nil {
		options.WithHeader("typ", typ)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: []byte(secret)}, options)
	require.NoError(t, err)
	token, err := jwt.Signed(signer).Claims(good()).Serialize()
	require.NoError(t, err)
	return token
}

func TestTokenTypes(t *testing.T) {
	standard := newVerifier(t, auth.Config{HMACSecret: secret})
	access := newVerifier(t, auth.Config{HMACSecret: secret, TokenTypes: []string{"application/AT+JWT"}})
	for _, test := range []struct {
		typ                         any
		wantByDefault, wantOfAccess error
	}{
		{nil, nil, auth.ErrType},
		{"JWT", nil, auth.ErrType},
		{"jwt", nil, auth.ErrType},
		{"application/jwt", nil, auth.ErrType},
		{"at+jwt", nil, nil},
		{"application/AT+JWT", nil, nil},
		{"logout+jwt", auth.ErrType, auth.ErrType},
		{"secevent+jwt", auth.ErrType, auth.ErrType},
		{"dpop+jwt", auth.ErrType, auth.ErrType},
		{"none", auth.ErrType, auth.ErrType},
		{5, auth.ErrMalformed, auth.ErrMalformed},
	} {
		_, err := standard.Verify(t.Context(), typed(t, test.typ))
		require.ErrorIs(t, err, test.wantByDefault, "%v", test.typ)
		_, err = access.Verify(t.Context(), typed(t, test.typ))
		require.ErrorIs(t, err, test.wantOfAccess, "%v", test.typ)
	}
	token, err := auth.Config{TokenTypes: []string{"at+jwt"}}.Mint([]byte(secret), "ann", time.Hour, now)
	require.NoError(t, err)
	_, err = access.Verify(t.Context(), token)
	require.NoError(t, err, "a minted token has an accepted type")
}

func TestOtherClaims(t *testing.T) {
	v := newVerifier(t, auth.Config{HMACSecret: secret, UserClaim: "email", DeviceClaim: "did", NameClaim: "name"})
	verify := func(claims map[string]any) (auth.Claims, error) {
		return v.Verify(t.Context(), sign(t, jose.HS256, []byte(secret), "", claims))
	}
	claims := with("email", "ann@example.com")
	claims["did"], claims["name"] = "phone 1", "Ann "+strings.Repeat("é", 200)
	got, err := verify(claims)
	require.NoError(t, err)
	require.Equal(t, ids.User("ann~40example~2Ecom"), got.User)
	require.Equal(t, ids.Device("phone~201"), got.Device)
	require.Equal(t, "Ann "+strings.Repeat("é", 126), got.Name)

	got, err = verify(with("email", "ann"))
	require.NoError(t, err)
	require.Equal(t, ids.User("ann"), got.User)
	require.Empty(t, got.Device)

	_, err = verify(good())
	require.ErrorIs(t, err, auth.ErrSubject)
	require.ErrorContains(t, err, "its claim email is missing or not text")
	_, err = verify(with("email", strings.Repeat("@", 60)))
	require.ErrorIs(t, err, auth.ErrSubject)
	require.ErrorContains(t, err, "too long for a user id: 64 characters at most")
	require.ErrorContains(t, err, "--auth.user-claim")
	bad := with("email", "ann")
	bad["did"] = 5
	_, err = verify(bad)
	require.ErrorIs(t, err, auth.ErrMalformed)

	token, err := auth.Config{UserClaim: "email"}.Mint([]byte(secret), "bob@example.com", time.Hour, now)
	require.NoError(t, err)
	got, err = v.Verify(t.Context(), token)
	require.NoError(t, err)
	require.Equal(t, ids.User("bob~40example~2Ecom"), got.User)
}

// Mint takes the issuer's name of a user, or the id to which this name is mapped, and makes the same token.
func TestMintForMappedUsers(t *testing.T) {
	v := newVerifier(t, auth.Config{HMACSecret: secret})
	for _, user := range []string{"auth0|x", "auth0~7Cx"} {
		token, err := auth.Mint([]byte(secret), ids.User(user), time.Hour, now, "", "")
		require.NoError(t, err)
		claims, err := v.Verify(t.Context(), token)
		require.NoError(t, err)
		require.Equal(t, ids.User("auth0~7Cx"), claims.User)
	}
}

func TestWarningsAboutSettings(t *testing.T) {
	const lifetime, audience = "--auth.max-lifetime", "--auth.audience"
	set := write(t, jwks(t, newPair(t, jose.ES256).jwk("1")))
	for _, test := range []struct {
		cfg         auth.Config
		development bool
		want        []string
	}{
		{auth.Config{HMACSecret: secret}, false, []string{lifetime}},
		{auth.Config{HMACSecret: secret}, true, nil},
		{auth.Config{JWKSFile: set}, false, []string{lifetime, audience}},
		{auth.Config{JWKSFile: set, Audience: "runnel", MaxLifetime: time.Hour}, false, nil},
	} {
		var log bytes.Buffer
		v, err := auth.New(test.cfg, auth.Options{Log: slog.New(slog.NewTextHandler(&log, nil)), Development: test.development})
		require.NoError(t, err)
		v.Close()
		require.Equal(t, len(test.want), strings.Count(log.String(), "level=WARN"), log.String())
		for _, want := range test.want {
			require.Contains(t, log.String(), want)
		}
	}
}

// A secret is replaced without a restart, and no token is refused. The new secret becomes the current one, and the former
// secret stays valid until its tokens have expired.
func TestSecretRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const other = "another-secret-of-at-least-32-bytes-in-length"
		current, previous := write(t, []byte(secret+"\n")), write(t, nil)
		cfg := auth.Config{HMACSecretFile: current, HMACSecretPreviousFile: previous}
		v, err := auth.New(cfg, auth.Options{Now: func() time.Time { return now }})
		require.NoError(t, err)
		mint := func() string {
			signing, err := cfg.Secret()
			require.NoError(t, err)
			token, err := cfg.Mint([]byte(signing), "ann", time.Hour, now)
			require.NoError(t, err)
			return token
		}
		verify := func(token string, want error) {
			t.Helper()
			_, err := v.Verify(t.Context(), token)
			require.ErrorIs(t, err, want)
		}
		first := mint()
		verify(first, nil)

		require.NoError(t, os.WriteFile(previous, []byte(secret), 0o600))
		require.NoError(t, os.WriteFile(current, []byte(other), 0o600))
		time.Sleep(time.Second)
		second := mint()
		require.NotEqual(t, first, second, "the new secret signs")
		verify(second, nil)
		verify(first, nil)

		require.NoError(t, os.WriteFile(previous, nil, 0o600))
		time.Sleep(time.Second)
		verify(second, nil)
		verify(first, auth.ErrSignature)

		require.NoError(t, os.WriteFile(current, []byte("short"), 0o600))
		time.Sleep(time.Second)
		verify(second, nil) // a secret that cannot be used changes nothing
	})
}

// Key files are also read again.
func TestKeyFilesAreReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := newPair(t, jose.ES256), newPair(t, jose.ES256)
		for _, test := range []struct {
			content func(pair) []byte
			cfg     func(path string) auth.Config
		}{
			{func(p pair) []byte { return jwks(t, p.jwk("1")) }, func(path string) auth.Config { return auth.Config{JWKSFile: path} }},
			{
				func(p pair) []byte {
					data, err := os.ReadFile(p.pem(t))
					require.NoError(t, err)
					return data
				},
				func(path string) auth.Config { return auth.Config{PublicKeyFiles: []string{path}} },
			},
		} {
			path := write(t, test.content(first))
			v := newVerifier(t, test.cfg(path))
			_, err := v.Verify(t.Context(), first.sign(t, "1", good()))
			require.NoError(t, err)
			require.NoError(t, os.Remove(path))
			require.NoError(t, os.WriteFile(path, test.content(second), 0o600))
			time.Sleep(time.Second)
			_, err = v.Verify(t.Context(), second.sign(t, "1", good()))
			require.NoError(t, err)
			_, err = v.Verify(t.Context(), first.sign(t, "1", good()))
			require.ErrorIs(t, err, auth.ErrSignature)
		}
	})
}
