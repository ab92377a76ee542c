package auth_test

import (
	"bytes"
	"context"
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

func TestRotation(t *testing.T) {
	first, second := newPair(t, jose.ES256), newPair(t, jose.EdDSA)
	i := newIssuer(t, jwks(t, first.jwk("1")))
	v, c, _ := newRemoteVerifier(t, i)
	verify := func(p pair, kid string) error {
		_, err := v.Verify(t.Context(), p.sign(t, kid, good()))
		return err
	}
	require.Zero(t, i.fetches.Load(), "nothing is fetched before it is needed")
	for range 3 {
		require.NoError(t, verify(first, "1"))
	}
	require.EqualValues(t, 1, i.fetches.Load())

	i.serve(jwks(t, first.jwk("1"), second.jwk("2")))
	require.ErrorIs(t, verify(second, "2"), auth.ErrSignature, "within the window")
	c.advance(10 * time.Second)
	require.NoError(t, verify(second, "2"), "a new key is found by its first token")
	require.NoError(t, verify(first, "1"))
	require.EqualValues(t, 2, i.fetches.Load())

	i.serve(jwks(t, second.jwk("2")))
	c.advance(time.Minute)
	require.NoError(t, verify(first, "1"), "a key is trusted while the set is young")
	c.advance(10 * time.Minute)
	require.NoError(t, verify(second, "2"), "an old set is still used while it is fetched again")
	require.ErrorIs(t, verify(first, "unknown"), auth.ErrSignature) // waits for that fetch
	require.EqualValues(t, 3, i.fetches.Load())
	require.ErrorIs(t, verify(first, "1"), auth.ErrSignature, "a key that was withdrawn")
}

// A key without a kid is replaced by another such key.
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

// Anybody can send tokens with invented key names. They must not cause load for the issuer.
func TestUnknownKeysDoNotHammerTheIssuer(t *testing.T) {
	known, forger := newPair(t, jose.ES256), newPair(t, jose.ES256)
	i := newIssuer(t, jwks(t, known.jwk("1")))
	v, c, _ := newRemoteVerifier(t, i)
	tokens := make([]string, 50)
	for n := range tokens {
		tokens[n] = forger.sign(t, fmt.Sprint("forged-", n), good())
	}
	for window := range 3 {
		var running sync.WaitGroup
		for _, token := range tokens {
			running.Go(func() {
				if _, err := v.Verify(t.Context(), token); err == nil {
					t.Error("a forged token passed")
				}
			})
		}
		running.Wait()
		require.EqualValues(t, window+1, i.fetches.Load())
		c.advance(10 * time.Second)
	}
	_, err := v.Verify(t.Context(), forger.sign(t, "1", good()))
	require.ErrorIs(t, err, auth.ErrSignature)
	_, err = v.Verify(t.Context(), sign(t, jose.HS256, []byte(secret), "forged", good()))
	require.ErrorIs(t, err, auth.ErrSignature)
	require.EqualValues(t, 3, i.fetches.Load(), "a known name, or a secret's algorithm, needs no fetch")
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
			_, err := v.Verify(t.Context(), pair.sign(t, "1", good))
			require.ErrorIs(t, err, auth.ErrKeysUnavailable, "the token may be good")
			require.ErrorIs(t, v.Ready(t.Context()), auth.ErrKeysUnavailable)
			require.EqualValues(t, 1, i.fetches.Load())

			i.serve(jwks(t, pair.jwk("1")))
			c.advance(10 * time.Second)
			require.NoError(t, v.Ready(t.Context()))
			_, err = v.Verify(t.Context(), pair.sign(t, "1", good))
			require.NoError(t, err)

			i.answerWith(answer)
			c.advance(time.Hour)
			_, err = v.Verify(t.Context(), other.sign(t, "2", good))
			require.ErrorIs(t, err, auth.ErrKeysUnavailable)
			_, err = v.Verify(t.Context(), pair.sign(t, "1", good))
			require.NoError(t, err, "the known keys are kept")
			require.NoError(t, v.Ready(t.Context()))
			v.Close()
			require.Equal(t, 2, bytes.Count(log.Bytes(), []byte("cannot be fetched")))
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
	require.Empty(t, log.String(), "and its end is no failure")
}
