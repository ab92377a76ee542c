package attack_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/stretchr/testify/require"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"

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
	published atomic.Pointer[[]byte] // a JSON Web Key Set
	fetches   atomic.Int64
}

// replace makes a new key, which is the only one from now on.
func (i *issuer) replace(t *testing.T, kid string) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &key.PublicKey, KeyID: kid, Algorithm: string(jose.ES256)}}})
	require.NoError(t, err)
	i.published.Store(&set)
	return key
}

// published is the issuer of the target that publishing started, firstKey its first key.
var (
	published *issuer
	firstKey  *ecdsa.PrivateKey
)

// rotating is publishing with an issuer that may be asked once a second.
func rotating(t *testing.T, cfg *standalone.Config) {
	t.Helper()
	publishing(t, cfg)
	cfg.Auth.JWKSRefresh = time.Second
}

// shortLived lets tokens live two hours.
func shortLived(t *testing.T, cfg *standalone.Config) {
	t.Helper()
	manyConnects(t, cfg)
	cfg.Auth.MaxLifetime = 2 * time.Hour
}

func publishing(t *testing.T, cfg *standalone.Config) {
	t.Helper()
	manyConnects(t, cfg)
	i := &issuer{}
	firstKey = i.replace(t, "1")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		i.fetches.Add(1)
		_, _ = w.Write(*i.published.Load())
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
	{
		name: "tokens for a hundred years", tries: "tokens with an expiry in a hundred years, at the end of time and beyond numbers, with a time of issue that is honest, absent, in the future or before time, where a token may live two hours", seen: "4501, or 4008 for one issued in the future; in connect and in refresh",
		bound: bound{sockets: 5, megabytes: 64, calls: 5, lines: tokenLines}, settings: shortLived, run: outlive,
	},
	{
		name: "a new key amid key ids that no issuer has", tries: "300 tokens with made-up key ids while the issuer replaces its key", seen: "clients with the new key connect within seconds, the old key ends with them; the issuer is asked once a second",
		bound: bound{sockets: 10, megabytes: 64, calls: 40, lines: 3 * tokenLines}, settings: rotating, run: rotate,
	},
}

// signed is a token of eve.
func signed(s *target, algorithm jose.SignatureAlgorithm, key any, kid, typ string) string {
	s.Helper()
	return signedClaims(s, algorithm, key, kid, typ, map[string]any{"sub": "eve", "exp": time.Now().Add(time.Hour).Unix()})
}

func signedClaims(s *target, algorithm jose.SignatureAlgorithm, key any, kid, typ string, claims map[string]any) string {
	s.Helper()
	options := (&jose.SignerOptions{}).WithType(jose.ContentType(typ))
	if kid != "" {
		options = options.WithHeader("kid", kid)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: key}, options)
	require.NoError(s, err)
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
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

func outlive(s *target) {
	now := time.Now()
	century := now.AddDate(100, 0, 0).Unix()
	member := s.connect("eve")
	for _, exp := range []any{century, int64(1) << 61, int64(math.MaxInt64), json.Number("1e300")} {
		for _, iat := range []any{nil, now.Unix(), century - 3600, -(int64(1) << 61), json.Number("-1e300"), json.Number("1e300")} {
			claims := map[string]any{"sub": "eve", "exp": exp}
			if iat != nil {
				claims["iat"] = iat
			}
			endless := signedClaims(s, jose.HS256, s.secret, "", "JWT", claims)
			allowed := []errcode.CloseCode{errcode.CloseUnauthenticated}
			if iat == century-3600 {
				allowed = append(allowed, errcode.CloseUnavailable)
			}
			require.Contains(s, allowed, s.present(endless), "%v", claims)
			answer, err := member.ask(&clientv1.ClientFrame{Request: &clientv1.ClientFrame_Refresh{Refresh: &clientv1.Refresh{Token: endless}}})
			require.NoError(s, err)
			require.NotNil(s, answer.GetError(), "%v", claims)
		}
	}
	// Without the century it would be a token.
	require.True(s, s.admits(signedClaims(s, jose.HS256, s.secret, "", "JWT", map[string]any{"sub": "eve", "exp": now.Add(time.Hour).Unix()})))
	s.during()
	member.leave()
}

// admits reports whether a client with a token is connected.
func (s *target) admits(token string) bool {
	s.Helper()
	c := s.socket()
	defer c.leave()
	answer, err := c.ask(&clientv1.ClientFrame{Request: &clientv1.ClientFrame_Connect{Connect: &clientv1.Connect{Token: token, DeviceId: "d"}}})
	return err == nil && answer.GetConnected() != nil
}

func rotate(s *target) {
	const half = 150
	forger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(s, err)
	forged := 0
	forge := func(n int) {
		for range n {
			forged++
			code := s.present(signed(s, jose.ES256, forger, fmt.Sprint("forged-", forged), "JWT"))
			require.Contains(s, []errcode.CloseCode{errcode.CloseUnauthenticated, errcode.CloseUnavailable}, code)
		}
	}
	began, before := time.Now(), firstKey
	require.True(s, s.admits(signed(s, jose.ES256, before, "1", "JWT")))
	forge(half)
	after := published.replace(s.T, "2")
	replaced := time.Now()
	// A client with the new key tries again as clients do; the forger goes on.
	for !s.admits(signed(s, jose.ES256, after, "2", "JWT")) {
		require.Less(s, time.Since(replaced), patience)
		forge(10)
	}
	require.False(s, s.admits(signed(s, jose.ES256, before, "1", "JWT")), "the old key is gone")
	s.during()
	forge(max(half, 300-forged))
	require.True(s, s.admits(signed(s, jose.ES256, after, "2", "JWT")))
	require.LessOrEqual(s, published.fetches.Load(), 6+int64(time.Since(began)/time.Second), "at the start, the burst, and one a second")
}
