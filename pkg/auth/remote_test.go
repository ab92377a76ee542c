package auth_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/auth"
)

// issuer is a JWKS server.
type issuer struct {
	*httptest.Server
	mu      sync.Mutex
	answer  http.HandlerFunc
	fetches atomic.Int32
}

func newIssuer(t *testing.T, body []byte) *issuer {
	t.Helper()
	i := &issuer{}
	i.serve(body)
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.fetches.Add(1)
		i.mu.Lock()
		answer := i.answer
		i.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) serve(body []byte) {
	i.answerWith(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) })
}

func (i *issuer) answerWith(answer http.HandlerFunc) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.answer = answer
}

// clock is a clock that the test moves.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time          { return now.Add(time.Duration(c.offset.Load())) }
func (c *clock) advance(d time.Duration) { c.offset.Add(int64(d)) }

func newRemoteVerifier(t *testing.T, i *issuer) (*auth.Verifier, *clock, *bytes.Buffer) {
	t.Helper()
	c, log := &clock{}, &bytes.Buffer{}
	v, err := auth.New(auth.Config{JWKSURL: i.URL, Leeway: 24 * time.Hour}, auth.Options{Now: c.now, Log: slog.New(slog.NewTextHandler(log, nil))})
	require.NoError(t, err)
	t.Cleanup(v.Close)
	return v, c, log
}

// A new key is accepted with its first token, even if the issuer began to use the key shortly after the last fetch.
func TestRotation(t *testing.T) {
	first, second := newPair(t, jose.ES256), newPair(t, jose.EdDSA)
	i := newIssuer(t, jwks(t, first.jwk("1")))
	v, c, _ := newRemoteVerifier(t, i)
	verify := func(p pair, kid string) error {
		_, err := v.Verify(t.Context(), p.sign(t, kid, good()))
		return err
	}
	require.NoError(t, v.Ready(t.Context()))
	for range 3 {
		require.NoError(t, verify(first, "1"))
	}
	require.EqualValues(t, 1, i.fetches.Load(), "at the start, and no more")

	i.serve(jwks(t, first.jwk("1"), second.jwk("2")))
	require.NoError(t, verify(second, "2"), "a new key is found by its first token")
	require.NoError(t, verify(first, "1"))
	require.EqualValues(t, 2, i.fetches.Load())

	i.serve(jwks(t, second.jwk("2")))
	c.advance(time.Minute)
	require.NoError(t, verify(first, "1"), "a key is trusted while the set is young")
	c.advance(10 * time.Minute)
	require.NoError(t, verify(second, "2"), "an old set is still used while it is fetched again")
	require.ErrorIs(t, verify(first, "unknown"), auth.ErrSignature)
	require.ErrorIs(t, verify(first, "1"), auth.ErrSignature, "a key that was withdrawn")
}

// An issuer may keep a key id and change its key.
func TestAKeyIsReplacedUnderItsName(t *testing.T) {
	first, second, third := newPair(t, jose.ES256), newPair(t, jose.ES256), newPair(t, jose.ES256)
	i := newIssuer(t, jwks(t, first.jwk("1")))
	v, c, _ := newRemoteVerifier(t, i)
	verify := func(p pair) error {
		_, err := v.Verify(t.Context(), p.sign(t, "1", good()))
		return err
	}
	require.NoError(t, verify(first))
	i.serve(jwks(t, second.jwk("1")))
	require.NoError(t, verify(second), "the same name, seconds after the last fetch")
	require.ErrorIs(t, verify(first), auth.ErrKeysUnavailable, "asked for this name a moment ago: not a final answer")

	i.serve(jwks(t, third.jwk("1")))
	require.ErrorIs(t, verify(third), auth.ErrKeysUnavailable, "again, within the window: refused for now")
	c.advance(10 * time.Second)
	require.NoError(t, verify(third))
	c.advance(10 * time.Second)
	require.ErrorIs(t, verify(first), auth.ErrSignature, "the issuer was asked, and it is not its key")
}

// However many forged tokens strangers send, with whatever key ids, a valid user of a new key is never refused
// permanently. The user is accepted as soon as another fetch is allowed.
func TestStrangersCannotKeepANewKeyOut(t *testing.T) {
	first, second, forger := newPair(t, jose.ES256), newPair(t, jose.ES256), newPair(t, jose.ES256)
	i := newIssuer(t, jwks(t, first.jwk("1")))
	v, c, _ := newRemoteVerifier(t, i)
	flood := func() {
		for n := range 50 {
			_, err := v.Verify(t.Context(), forger.sign(t, fmt.Sprint("forged-", n), good()))
			require.Error(t, err)
		}
		_, err := v.Verify(t.Context(), forger.sign(t, "2", good()))
		require.Error(t, err)
	}
	flood()
	i.serve(jwks(t, second.jwk("2")))
	_, err := v.Verify(t.Context(), second.sign(t, "2", good()))
	require.ErrorIs(t, err, auth.ErrKeysUnavailable)
	require.True(t, auth.Passing(err))
	c.advance(10 * time.Second)
	flood()
	_, err = v.Verify(t.Context(), second.sign(t, "2", good()))
	require.NoError(t, err, "a stranger's fetch brings the key as well")
}

// A token that would be refused anyway causes no fetch.
func TestWorthlessTokensCauseNoFetch(t *testing.T) {
	known, forger := newPair(t, jose.ES256), newPair(t, jose.ES256)
	i := newIssuer(t, jwks(t, known.jwk("1")))
	v, err := auth.New(auth.Config{JWKSURL: i.URL, Audience: "runnel", Issuer: "https://issuer", MaxLifetime: time.Hour},
		auth.Options{Now: func() time.Time { return now }})
	require.NoError(t, err)
	t.Cleanup(v.Close)
	require.NoError(t, v.Ready(t.Context()))
	for _, claims := range []map[string]any{
		with("exp", now.Unix()-60), with("nbf", now.Unix()+60), with("aud", "other"), with("iss", "other"), with("sub", ""),
		with("exp", now.Unix()+7200),
	} {
		_, err := v.Verify(t.Context(), forger.sign(t, "new", claims))
		require.Error(t, err)
		require.NotErrorIs(t, err, auth.ErrKeysUnavailable)
		require.NotErrorIs(t, err, auth.ErrSignature)
	}
	require.EqualValues(t, 1, i.fetches.Load())
	_, err = v.Verify(t.Context(), forger.sign(t, "new", good()))
	require.ErrorIs(t, err, auth.ErrSignature)
	require.EqualValues(t, 2, i.fetches.Load())
}

// A fetch that began before a token arrived does not decide about the token's key: the issuer may have begun to use the
// key since.
func TestAFetchUnderWayIsNotTheLastWord(t *testing.T) {
	first, second := newPair(t, jose.ES256), newPair(t, jose.ES256)
	i := newIssuer(t, nil)
	entered, answer := make(chan struct{}), make(chan struct{})
	i.answerWith(func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-answer
		_, _ = w.Write(jwks(t, first.jwk("1")))
	})
	v, _, _ := newRemoteVerifier(t, i)
	<-entered
	i.serve(jwks(t, second.jwk("2")))
	result, token := make(chan error, 1), second.sign(t, "2", good())
	go func() {
		_, err := v.Verify(t.Context(), token)
		result <- err
	}()
	close(answer)
	require.NoError(t, <-result)
}

// A key without a key id is replaced by another key without a key id.
func TestRotationWithoutNames(t *testing.T) {
	first, second := newPair(t, jose.ES256), newPair(t, jose.ES256)
	i := newIssuer(t, jwks(t, first.jwk("")))
	v, c, _ := newRemoteVerifier(t, i)
	for _, kid := range []string{"", "named by the token only"} {
		i.serve(jwks(t, first.jwk("")))
		c.advance(10 * time.Second)
		_, err := v.Verify(t.Context(), first.sign(t, kid, good()))
		require.NoError(t, err)
		i.serve(jwks(t, second.jwk("")))
		c.advance(10 * time.Second)
		_, err = v.Verify(t.Context(), second.sign(t, kid, good()))
		require.NoError(t, err)
	}
}

// Anyone can send tokens with invented key ids. The issuer must hardly notice.
func TestUnknownKeysDoNotHammerTheIssuer(t *testing.T) {
	known, forger := newPair(t, jose.ES256), newPair(t, jose.ES256)
	i := newIssuer(t, jwks(t, known.jwk("1")))
	v, c, _ := newRemoteVerifier(t, i)
	require.NoError(t, v.Ready(t.Context()))
	tokens := make([]string, 50)
	for n := range tokens {
		tokens[n] = forger.sign(t, fmt.Sprint("forged-", n), good())
	}
	for window := range 3 {
		var running sync.WaitGroup
		for _, token := range tokens {
			running.Go(func() {
				_, err := v.Verify(t.Context(), token)
				if !errors.Is(err, auth.ErrSignature) && !errors.Is(err, auth.ErrKeysUnavailable) {
					t.Errorf("a forged token: %v", err)
				}
			})
		}
		running.Wait()
		require.LessOrEqual(t, i.fetches.Load(), int32(1+4+window), "the first, a burst of 4, and one in each window")
		c.advance(10 * time.Second)
	}
	before := i.fetches.Load()
	for range 3 {
		_, err := v.Verify(t.Context(), forger.sign(t, "1", good()))
		require.Error(t, err)
	}
	require.LessOrEqual(t, i.fetches.Load(), before+1, "a known name causes one fetch in a window")
	before = i.fetches.Load()
	_, err := v.Verify(t.Context(), sign(t, jose.HS256, []byte(secret), "forged", good()))
	require.ErrorIs(t, err, auth.ErrSignature)
	require.Equal(t, before, i.fetches.Load(), "a secret's algorithm needs no fetch")
	_, err = v.Verify(t.Context(), known.sign(t, "1", good()))
	require.NoError(t, err)
}

func TestStaleKeysServeWhileTheIssuerFails(t *testing.T) {
	pair, other := newPair(t, jose.ES256), newPair(t, jose.ES256)
	good := good()
	for name, answer := range map[string]http.HandlerFunc{
		"error": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		},
		"garbage":  func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) },
		"no keys":  func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"keys":[]}`)) },
		"too much": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(bytes.Repeat([]byte(" "), 2<<20)) },
		"hang up":  func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			i := newIssuer(t, nil)
			i.answerWith(answer)
			v, c, log := newRemoteVerifier(t, i)
			require.ErrorIs(t, v.Ready(t.Context()), auth.ErrKeysUnavailable)
			require.EqualValues(t, 1, i.fetches.Load())
			for range 2 {
				_, err := v.Verify(t.Context(), pair.sign(t, "1", good))
				require.ErrorIs(t, err, auth.ErrKeysUnavailable, "the token may be good")
			}
			require.ErrorIs(t, v.Ready(t.Context()), auth.ErrKeysUnavailable)
			require.LessOrEqual(t, i.fetches.Load(), int32(2))

			i.serve(jwks(t, pair.jwk("1")))
			c.advance(10 * time.Second)
			require.NoError(t, v.Ready(t.Context()))
			_, err := v.Verify(t.Context(), pair.sign(t, "1", good))
			require.NoError(t, err)

			i.answerWith(answer)
			c.advance(time.Hour)
			_, err = v.Verify(t.Context(), other.sign(t, "2", good))
			require.ErrorIs(t, err, auth.ErrKeysUnavailable)
			_, err = v.Verify(t.Context(), pair.sign(t, "1", good))
			require.NoError(t, err, "the known keys are kept")
			require.NoError(t, v.Ready(t.Context()))
			v.Close()
			require.Equal(t, 2, bytes.Count(log.Bytes(), []byte("cannot be fetched")), "said once each time that it begins")
			require.Equal(t, 1, bytes.Count(log.Bytes(), []byte("is fetched again")))
		})
	}
}

func TestAFetchCanBeLeftAndEnded(t *testing.T) {
	entered := make(chan struct{})
	i := newIssuer(t, nil)
	i.answerWith(func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
	})
	v, c, log := newRemoteVerifier(t, i)
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	token := newPair(t, jose.ES256).sign(t, "1", good())
	go func() {
		_, err := v.Verify(ctx, token)
		result <- err
	}()
	<-entered
	cancel()
	require.ErrorIs(t, <-result, context.Canceled)
	v.Close()
	v.Close()
	c.advance(time.Hour)
	_, err := v.Verify(t.Context(), token)
	require.ErrorIs(t, err, auth.ErrKeysUnavailable)
	require.EqualValues(t, 1, i.fetches.Load(), "a closed verifier fetches nothing")
	require.NotContains(t, log.String(), "cannot be fetched", "and its end is no failure")
}
