package auth_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/auth"
)

func block(t *testing.T, kind string, der []byte, err error) string {
	t.Helper()
	require.NoError(t, err)
	return write(t, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func jwks(tb testing.TB, keys ...any) []byte {
	tb.Helper()
	data, err := json.Marshal(map[string]any{"keys": keys})
	require.NoError(tb, err)
	return data
}

func TestKeysThatAreRefused(t *testing.T) {
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	require.NoError(t, err)
	weakDER, weakErr := x509.MarshalPKIXPublicKey(weak.Public())
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	p384DER, p384Err := x509.MarshalPKIXPublicKey(p384.Public())
	private, privateErr := x509.MarshalPKCS8PrivateKey(p384)
	pair := newPair(t, jose.ES256)

	for want, cfg := range map[string]auth.Config{
		"no key for verifying tokens is configured": {},
		"shorter than 32 bytes":                     {HMACSecret: "short"},
		"leeway":                                    {HMACSecret: secret, Leeway: -1},
		"reading keys: stat /nowhere":               {PublicKeyFiles: []string{"/nowhere"}},
		"holds no PEM block":                        {PublicKeyFiles: []string{write(t, []byte("key"))}},
		"contains a private key":                    {PublicKeyFiles: []string{block(t, "PRIVATE KEY", private, privateErr)}},
		`holds "CERTIFICATE"`:                       {PublicKeyFiles: []string{block(t, "CERTIFICATE", private, nil)}},
		"an RSA key of 1024 bits":                   {PublicKeyFiles: []string{block(t, "PUBLIC KEY", weakDER, weakErr)}},
		"an EC key on P-384":                        {PublicKeyFiles: []string{block(t, "PUBLIC KEY", p384DER, p384Err)}},
		"no such file":                              {JWKSFile: "/nowhere"},
		"both set":                                  {HMACSecret: secret, HMACSecretFile: "/nowhere"},
		"previous HMAC secret and a":                {HMACSecret: secret, HMACSecretPrevious: secret, HMACSecretPreviousFile: "/nowhere"},
		"but no current one":                        {HMACSecretPrevious: secret},
		"previous HMAC secret (RUNNEL":              {HMACSecret: secret, HMACSecretPrevious: "short"},
		"exclude each other":                        {HMACSecret: secret, AllowNoExpiry: true, MaxLifetime: time.Hour},
		"lifetime -1ns is negative":                 {HMACSecret: secret, MaxLifetime: -1},
		"not a JSON Web Key Set":                    {JWKSFile: write(t, []byte("[]"))},
		"holds no key that can be used":             {JWKSFile: write(t, jwks(t))},
		"holds 33 keys":                             {JWKSFile: write(t, jwks(t, make([]any, 33)...))},
		"not an https URL":                          {JWKSURL: "ftp://issuer/keys"},
		"has no TLS":                                {JWKSURL: "http://issuer/keys"},
		"http://user:xxxxx@issuer has":              {JWKSURL: "http://user:password@issuer"},
	} {
		_, err := auth.New(cfg, auth.Options{})
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "password")
	}
	for _, url := range []string{"https://issuer/keys", "http://localhost:1/keys", "http://127.0.0.1/keys", "http://[::1]/keys"} {
		newVerifier(t, auth.Config{JWKSURL: url})
	}
	newVerifier(t, auth.Config{JWKSURL: "http://issuer/keys", JWKSAllowHTTP: true})
	newVerifier(t, auth.Config{PublicKeyFiles: []string{pair.pem(t)}})
}

// One set may contain keys for many purposes. Only keys that verify signatures with an accepted algorithm are used.
func TestJWKSFile(t *testing.T) {
	useful, encryption, private := newPair(t, jose.ES256), newPair(t, jose.ES256), newPair(t, jose.ES256)
	wrongAlgorithm, second := newPair(t, jose.RS256), newPair(t, jose.ES256)
	forEncryption := encryption.jwk("enc")
	forEncryption.Use = "enc"
	rs512 := wrongAlgorithm.jwk("rs512")
	rs512.Algorithm = "RS512"
	v := newVerifier(t, auth.Config{JWKSFile: write(t, jwks(t,
		useful.jwk("useful"), second.jwk("second"), forEncryption, rs512,
		jose.JSONWebKey{Key: private.private, KeyID: "private"},
		jose.JSONWebKey{Key: []byte(secret), KeyID: "secret", Algorithm: "HS256"},
		map[string]any{"kty": "new", "kid": "unknown"}, map[string]any{}, "text", nil))})

	for token, want := range map[string]error{
		useful.sign(t, "useful", good()):                                                    nil,
		useful.sign(t, "", good()):                                                          nil,
		second.sign(t, "", good()):                                                          nil,
		second.sign(t, "useful", good()):                                                    auth.ErrSignature,
		useful.sign(t, "unknown", good()):                                                   auth.ErrSignature,
		encryption.sign(t, "enc", good()):                                                   auth.ErrSignature,
		private.sign(t, "private", good()):                                                  auth.ErrSignature,
		wrongAlgorithm.sign(t, "rs512", good()):                                             auth.ErrSignature,
		sign(t, jose.HS256, []byte(secret), "secret", good()):                               auth.ErrSignature,
		sign(t, jose.RS512, wrongAlgorithm.private, "rs512", good()):                        auth.ErrSignature,
		sign(t, jose.HS256, []byte("useful-useful-useful-useful-useful"), "useful", good()): auth.ErrSignature,
	} {
		_, err := v.Verify(t.Context(), token)
		require.ErrorIs(t, err, want)
	}

	ed := newPair(t, jose.EdDSA)
	named := ed.jwk("ed")
	named.Algorithm = "Ed25519"
	_, err := newVerifier(t, auth.Config{JWKSFile: write(t, jwks(t, named))}).Verify(t.Context(), ed.sign(t, "ed", good()))
	require.NoError(t, err)
}
