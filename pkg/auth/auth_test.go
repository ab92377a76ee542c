package auth_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// now is the time in all tests of this file.
var now = time.Unix(1_800_000_000, 0)

const secret = "a-secret-of-at-least-32-bytes-in-length"

// pair is a private key and its algorithm.
type pair struct {
	algorithm jose.SignatureAlgorithm
	private   crypto.Signer
}

func newPair(tb testing.TB, algorithm jose.SignatureAlgorithm) pair {
	tb.Helper()
	var private crypto.Signer
	var err error
	switch algorithm {
	case jose.RS256:
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	case jose.ES256:
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case jose.EdDSA:
		_, private, err = ed25519.GenerateKey(rand.Reader)
	default:
		tb.Fatalf("no key for %s", algorithm)
	}
	require.NoError(tb, err)
	return pair{algorithm, private}
}

// pem writes the public key to a file.
func (p pair) pem(tb testing.TB) string {
	tb.Helper()
	der, err := x509.MarshalPKIXPublicKey(p.private.Public())
	require.NoError(tb, err)
	return write(tb, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func (p pair) jwk(kid string) jose.JSONWebKey {
	return jose.JSONWebKey{Key: p.private.Public(), KeyID: kid, Algorithm: string(p.algorithm), Use: "sig"}
}

func (p pair) sign(tb testing.TB, kid string, claims any) string {
	tb.Helper()
	return sign(tb, p.algorithm, p.private, kid, claims)
}

func sign(tb testing.TB, algorithm jose.SignatureAlgorithm, key any, kid string, claims any) string {
	tb.Helper()
	options := &jose.SignerOptions{}
	if kid != "" {
		options.WithHeader("kid", kid)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: key}, options)
	require.NoError(tb, err)
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	require.NoError(tb, err)
	return token
}

func write(tb testing.TB, data []byte) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "key")
	require.NoError(tb, os.WriteFile(path, data, 0o600))
	return path
}

func newVerifier(tb testing.TB, cfg auth.Config) *auth.Verifier {
	tb.Helper()
	v, err := auth.New(cfg, auth.Options{Now: func() time.Time { return now }})
	require.NoError(tb, err)
	tb.Cleanup(v.Close)
	return v
}

// good returns valid claims; tests change them.
func good() map[string]any {
	return map[string]any{"sub": "ann", "exp": now.Unix() + 60, "iat": now.Unix(), "jti": "1", "aud": []string{"other", "runnel"}, "iss": "https://issuer"}
}

func with(change string, value any) map[string]any {
	claims := good()
	if value == nil {
		delete(claims, change)
	} else {
		claims[change] = value
	}
	return claims
}

func TestEveryAlgorithm(t *testing.T) {
	pairs := []pair{newPair(t, jose.RS256), newPair(t, jose.ES256), newPair(t, jose.EdDSA)}
	cfg := auth.Config{HMACSecret: secret}
	for _, p := range pairs {
		cfg.PublicKeyFiles = append(cfg.PublicKeyFiles, p.pem(t))
	}
	v := newVerifier(t, cfg)
	tokens := []string{sign(t, jose.HS256, []byte(secret), "", good()), sign(t, jose.HS256, []byte(secret), "any", good())}
	for _, p := range pairs {
		tokens = append(tokens, p.sign(t, "", good()), p.sign(t, "any", good()))
	}
	for _, token := range tokens {
		claims, err := v.Verify(t.Context(), token)
		require.NoError(t, err)
		require.Equal(t, auth.Claims{User: "ann", Expires: now.Add(time.Minute), IssuedAt: now, ID: "1"}, claims)
	}
	require.NoError(t, v.Ready(t.Context()))
}

func TestClaims(t *testing.T) {
	v := newVerifier(t, auth.Config{HMACSecret: secret, Audience: "runnel", Issuer: "https://issuer"})
	for name, test := range map[string]struct {
		claims any
		want   error
	}{
		"good":                        {good(), nil},
		"one audience":                {with("aud", "runnel"), nil},
		"expired":                     {with("exp", now.Unix()-60), auth.ErrExpired},
		"expired within the leeway":   {with("exp", now.Unix()-29), nil},
		"expired at the leeway":       {with("exp", now.Unix()-30), auth.ErrExpired},
		"expires in the far future":   {with("exp", int64(1)<<61), nil},
		"expires beyond time":         {with("exp", 1e300), auth.ErrMalformed},
		"expiry before time":          {with("exp", -1), auth.ErrExpired},
		"expiry as text":              {with("exp", "1800000060"), auth.ErrMalformed},
		"no expiry":                   {with("exp", nil), auth.ErrMalformed},
		"not yet":                     {with("nbf", now.Unix()+31), auth.ErrNotYetValid},
		"not yet, within the leeway":  {with("nbf", now.Unix()+30), nil},
		"not before the end of time":  {with("nbf", int64(1)<<61), auth.ErrNotYetValid},
		"issued in the future":        {with("iat", now.Unix()+31), auth.ErrNotYetValid},
		"other audience":              {with("aud", "other"), auth.ErrAudience},
		"no audience":                 {with("aud", nil), auth.ErrAudience},
		"audience of numbers":         {with("aud", []int{1}), auth.ErrMalformed},
		"audience that only contains": {with("aud", "runnel2"), auth.ErrAudience},
		"other issuer":                {with("iss", "https://issuer/"), auth.ErrIssuer},
		"no issuer":                   {with("iss", nil), auth.ErrIssuer},
		"no subject":                  {with("sub", nil), auth.ErrSubject},
		"empty subject":               {with("sub", ""), auth.ErrSubject},
		"subject of another alphabet": {with("sub", "auth0|x"), nil},
		"subject with a line break":   {with("sub", "ann\n"), auth.ErrSubject},
		"long subject":                {with("sub", strings.Repeat("a", 65)), auth.ErrSubject},
		"subject as a number":         {with("sub", 5), auth.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := v.Verify(t.Context(), sign(t, jose.HS256, []byte(secret), "", test.claims))
			require.ErrorIs(t, err, test.want)
		})
	}
	t.Run("unconfigured claims are not checked", func(t *testing.T) {
		v := newVerifier(t, auth.Config{HMACSecret: secret, AllowNoExpiry: true})
		claims, err := v.Verify(t.Context(), sign(t, jose.HS256, []byte(secret), "", map[string]any{"sub": "ann"}))
		require.NoError(t, err)
		require.Equal(t, auth.Claims{User: "ann"}, claims)
	})
}

func encode(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// forge makes a token with a given header and payload. It signs with HMAC, whatever algorithm the header states.
func forge(header, payload string, key []byte) string {
	input := encode(header) + "." + encode(payload)
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(input))
	return input + "." + encode(string(mac.Sum(nil)))
}

func TestForgeries(t *testing.T) {
	rsaPair, ecPair, other := newPair(t, jose.RS256), newPair(t, jose.ES256), newPair(t, jose.RS256)
	rsaPEM := rsaPair.pem(t)
	v := newVerifier(t, auth.Config{HMACSecret: secret, PublicKeyFiles: []string{rsaPEM, ecPair.pem(t)}})
	publicOnly := newVerifier(t, auth.Config{PublicKeyFiles: []string{rsaPEM}})

	const claims = `{"sub":"ann","exp":1800000060}`
	honest := sign(t, jose.HS256, []byte(secret), "", good())
	_, err := v.Verify(t.Context(), honest)
	require.NoError(t, err)
	_, err = v.Verify(t.Context(), forge(`{"alg":"HS256"}`, claims, []byte(secret)))
	require.NoError(t, err, "a token made with the right secret is accepted")

	parts := strings.Split(honest, ".")
	pemBytes, err := os.ReadFile(rsaPEM)
	require.NoError(t, err)
	der, _ := pem.Decode(pemBytes)
	hs384, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS384, Key: bytes.Repeat([]byte(secret), 2)}, nil)
	require.NoError(t, err)
	otherAlgorithm, err := jwt.Signed(hs384).Claims(good()).Serialize()
	require.NoError(t, err)
	jwk, err := rsaPair.jwk("x").MarshalJSON()
	require.NoError(t, err)

	for name, test := range map[string]struct {
		token string
		want  error
	}{
		"empty":                           {"", auth.ErrMalformed},
		"no token":                        {"hello", auth.ErrMalformed},
		"two parts":                       {parts[0] + "." + parts[1], auth.ErrMalformed},
		"four parts":                      {honest + ".", auth.ErrMalformed},
		"five parts, as encrypted":        {"a.b.c.d.e", auth.ErrMalformed},
		"not base64":                      {"!!!." + parts[1] + "." + parts[2], auth.ErrMalformed},
		"padded":                          {honest + "=", auth.ErrMalformed},
		"line break":                      {parts[0] + "\n." + parts[1] + "." + parts[2], auth.ErrMalformed},
		"JSON serialisation":              {`{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`, auth.ErrMalformed},
		"alg none":                        {encode(`{"alg":"none"}`) + "." + encode(claims) + ".", auth.ErrSignature},
		"alg None":                        {encode(`{"alg":"None"}`) + "." + encode(claims) + ".", auth.ErrSignature},
		"no alg":                          {forge(`{}`, claims, []byte(secret)), auth.ErrSignature},
		"alg as a list":                   {forge(`{"alg":["HS256"]}`, claims, []byte(secret)), auth.ErrSignature},
		"no signature":                    {parts[0] + "." + parts[1] + ".", auth.ErrSignature},
		"signature cut short":             {honest[:len(honest)-4], auth.ErrSignature},
		"other secret":                    {forge(`{"alg":"HS256"}`, claims, []byte("another-secret-of-at-least-32-bytes!!")), auth.ErrSignature},
		"empty secret":                    {forge(`{"alg":"HS256"}`, claims, nil), auth.ErrSignature},
		"other payload":                   {parts[0] + "." + encode(claims) + "." + parts[2], auth.ErrSignature},
		"other algorithm, known secret":   {otherAlgorithm, auth.ErrSignature},
		"other key":                       {other.sign(t, "", good()), auth.ErrSignature},
		"HS256 with the public key PEM":   {forge(`{"alg":"HS256"}`, claims, pemBytes), auth.ErrSignature},
		"HS256 with the public key bytes": {forge(`{"alg":"HS256"}`, claims, der.Bytes), auth.ErrSignature},
		"HMAC said to be RS256":           {forge(`{"alg":"RS256"}`, claims, []byte(secret)), auth.ErrSignature},
		"HMAC said to be ES256":           {forge(`{"alg":"ES256"}`, claims, []byte(secret)), auth.ErrSignature},
		"key in the token":                {forge(`{"alg":"HS256","jwk":`+string(jwk)+`}`, claims, der.Bytes), auth.ErrSignature},
		"key behind a URL":                {forge(`{"alg":"HS256","jku":"http://127.0.0.1:1/"}`, claims, der.Bytes), auth.ErrSignature},
		"alg twice":                       {forge(`{"alg":"none","alg":"HS256"}`, claims, []byte(secret)), auth.ErrMalformed},
		"subject twice":                   {forge(`{"alg":"HS256"}`, `{"sub":"ann","sub":"bob","exp":1800000060}`, []byte(secret)), auth.ErrMalformed},
		"crit of an extension":            {forge(`{"alg":"HS256","crit":["exp"],"exp":1}`, claims, []byte(secret)), auth.ErrMalformed},
		"crit b64":                        {forge(`{"alg":"HS256","crit":["b64"],"b64":false}`, claims, []byte(secret)), auth.ErrMalformed},
		"crit empty":                      {forge(`{"alg":"HS256","crit":[]}`, claims, []byte(secret)), auth.ErrMalformed},
		"claims as a list":                {forge(`{"alg":"HS256"}`, "["+claims+"]", []byte(secret)), auth.ErrMalformed},
		"deep claims":                     {forge(`{"alg":"HS256"}`, strings.Repeat("[", 5000), []byte(secret)), auth.ErrMalformed},
		"empty claims":                    {forge(`{"alg":"HS256"}`, ``, []byte(secret)), auth.ErrMalformed},
		"more behind the claims":          {forge(`{"alg":"HS256"}`, claims+claims, []byte(secret)), auth.ErrMalformed},
		"too long":                        {strings.Repeat("a", protocol.MaxTokenBytes+1), auth.ErrMalformed},
		"huge":                            {forge(`{"alg":"HS256"}`, strings.Repeat(" ", 10<<20)+claims, []byte(secret)), auth.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			for _, v := range []*auth.Verifier{v, publicOnly} {
				_, err := v.Verify(t.Context(), test.token)
				if v == publicOnly && errors.Is(test.want, auth.ErrMalformed) {
					require.Error(t, err) // the signature may be refused first
				} else {
					require.ErrorIs(t, err, test.want)
				}
				harmless(t, err, test.token)
			}
		})
	}
	_, err = publicOnly.Verify(t.Context(), honest)
	require.ErrorIs(t, err, auth.ErrSignature)
}

// harmless checks that an error quotes no part of the token.
func harmless(tb testing.TB, err error, token string) {
	tb.Helper()
	require.Less(tb, len(err.Error()), 160)
	for part := range strings.SplitSeq(token, ".") {
		if len(part) > 8 {
			require.NotContains(tb, err.Error(), part)
		}
	}
}

func TestMint(t *testing.T) {
	token, err := auth.Mint([]byte(secret), "ann", time.Hour, now, "runnel", "dev")
	require.NoError(t, err)
	v := newVerifier(t, auth.Config{HMACSecret: secret, Audience: "runnel", Issuer: "dev"})
	claims, err := v.Verify(t.Context(), token)
	require.NoError(t, err)
	require.Equal(t, auth.Claims{User: "ann", Expires: now.Add(time.Hour), IssuedAt: now}, claims)

	token, err = auth.Mint([]byte(secret), "ann", time.Hour, now, "", "")
	require.NoError(t, err)
	_, err = v.Verify(t.Context(), token)
	require.ErrorIs(t, err, auth.ErrAudience)

	_, err = auth.Mint([]byte("short"), "ann", time.Hour, now, "", "")
	require.ErrorContains(t, err, "shorter than 32 bytes")
	_, err = auth.Mint([]byte(secret), "a\tb", time.Hour, now, "", "")
	require.ErrorIs(t, err, auth.ErrSubject)
	_, err = auth.Mint([]byte(secret), "ann", 0, now, "", "")
	require.ErrorContains(t, err, "the minimum is one second")
}

func FuzzVerify(f *testing.F) {
	ec := newPair(f, jose.ES256)
	v := newVerifier(f, auth.Config{HMACSecret: secret, PublicKeyFiles: []string{ec.pem(f)}})
	f.Add(sign(f, jose.HS256, []byte(secret), "", good()))
	f.Add(ec.sign(f, "k", good()))
	f.Add(encode(`{"alg":"none"}`) + "." + encode(`{"sub":"ann"}`) + ".")
	f.Add("..")
	reasons := []error{auth.ErrLifetime, auth.ErrType, auth.ErrMalformed, auth.ErrSignature, auth.ErrExpired, auth.ErrNotYetValid, auth.ErrAudience, auth.ErrIssuer, auth.ErrSubject}
	f.Fuzz(func(t *testing.T, token string) {
		claims, err := v.Verify(t.Context(), token)
		if err == nil {
			require.Equal(t, ids.User("ann"), claims.User, "only the issuer has a signed token")
			return
		}
		harmless(t, err, token)
		known := false
		for _, reason := range reasons {
			known = known || errors.Is(err, reason)
		}
		require.True(t, known, "%v", err)
	})
}

func BenchmarkVerify(b *testing.B) {
	for _, algorithm := range []jose.SignatureAlgorithm{jose.HS256, jose.RS256, jose.ES256, jose.EdDSA} {
		b.Run(string(algorithm), func(b *testing.B) {
			cfg, token := auth.Config{HMACSecret: secret}, sign(b, jose.HS256, []byte(secret), "", good())
			if algorithm != jose.HS256 {
				p := newPair(b, algorithm)
				cfg, token = auth.Config{PublicKeyFiles: []string{p.pem(b)}}, p.sign(b, "", good())
			}
			v := newVerifier(b, cfg)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(b.Context(), token); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
