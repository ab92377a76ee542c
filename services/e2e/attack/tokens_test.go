package attack_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/services/standalone"
)

const (
	refusedTokens = 5000
	// tokenLines bounds the lines about refused tokens: a burst of five, and one line for each pause, which doubles.
	tokenLines = 20
	keyIDs     = 200
)

// issuer publishes one key, and counts how often it is fetched.
type issuer struct {
	key     *ecdsa.PrivateKey
	fetches atomic.Int64
}

// published is the issuer of the target that publishing started.
var published *issuer

func publishing(t *testing.T, cfg *standalone.Config) {
	t.Helper()
	manyConnects(t, cfg)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	i := &issuer{key: key}
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &key.PublicKey, KeyID: "1", Algorithm: string(jose.ES256)}}})
	require.NoError(t, err)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		i.fetches.Add(1)
		_, _ = w.Write(set)
	}))
	t.Cleanup(server.Close)
	published, cfg.Auth.JWKSURL, cfg.Auth.JWKSRefresh = i, server.URL, 24*time.Hour
}

// manyConnects lets one address connect as often as it likes.
func manyConnects(_ *testing.T, cfg *standalone.Config) {
	cfg.Gateway.ConnectRatePerIP, cfg.Gateway.ConnectRatePerNetwork, cfg.Gateway.ConnectRate = 1e6, 1e6, 1e6
}

var tokens = []attack{
	{
		name: "refused tokens", tries: "5,000 tokens: malformed, signed with another secret, or of another type", seen: "4501; each is a line of the log or counted in one",
		bound: bound{sockets: 5, megabytes: 64, lines: tokenLines}, settings: manyConnects, run: refuse,
	},
	{
		name: "key ids that no issuer has", tries: "200 tokens, each with a key id of its own, where the issuer may be asked again after a day", seen: "4501 or 4008; the issuer is asked at most five times",
		bound: bound{sockets: 5, megabytes: 64, lines: 2 * tokenLines}, settings: publishing, run: guess,
	},
}

// signed is a token of eve.
func signed(s *target, algorithm jose.SignatureAlgorithm, key any, kid, typ string) string {
	s.Helper()
	options := (&jose.SignerOptions{}).WithType(jose.ContentType(typ))
	if kid != "" {
		options = options.WithHeader("kid", kid)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: key}, options)
	require.NoError(s, err)
	token, err := jwt.Signed(signer).Claims(map[string]any{"sub": "eve", "exp": time.Now().Add(time.Hour).Unix()}).Serialize()
	require.NoError(s, err)
	return token
}

// present connects with a token, and returns the code that closes the connection.
func (s *target) present(token string) errcode.CloseCode {
	s.Helper()
	conn, replies := s.stranger()
	defer func() { _ = conn.Close() }()
	_, err := conn.Write([]byte(masked(`{"id":"1","connect":{"token":"` + token + `","deviceId":"d"}}`)))
	require.NoError(s, err)
	return closing(s, conn, replies)
}

func refuse(s *target) {
	bad := []string{
		strings.Repeat("malformed", 20),
		signed(s, jose.HS256, []byte(strings.Repeat("another secret", 4)), "", "JWT"),
		signed(s, jose.HS256, s.secret, "", "logout+jwt"),
	}
	for i := range refusedTokens {
		require.Equal(s, errcode.CloseUnauthenticated, s.present(bad[i%len(bad)]))
	}
	s.during()
	require.NoError(s, s.tel.Shutdown(s.Context())) // writes the lines that are held back
	told := 0
	for line := range strings.Lines(s.log.String()) {
		var entry struct {
			Msg       string `json:"msg"`
			NotLogged int    `json:"not_logged"`
		}
		require.NoError(s, json.Unmarshal([]byte(line), &entry))
		if entry.Msg == "a token was refused" {
			told += 1 + entry.NotLogged
		}
	}
	require.Equal(s, refusedTokens, told)
}

func guess(s *target) {
	forger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(s, err)
	for i := range keyIDs {
		code := s.present(signed(s, jose.ES256, forger, fmt.Sprint("forged-", i), "JWT"))
		require.Contains(s, []errcode.CloseCode{errcode.CloseUnauthenticated, errcode.CloseUnavailable}, code)
	}
	s.during()
	require.LessOrEqual(s, published.fetches.Load(), int64(5), "at the start, and the burst")
}
