package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// fetchTimeout is short, because clients wait for the fetch after they have sent their first frame.
	fetchTimeout = 5 * time.Second
	maxJWKSBytes = 1 << 20
)

// fetchBurst is the number of fetches that tokens may cause in a row, before they are limited to one per window.
const fetchBurst = 4

// remote holds the keys of a JWKS URL. Only one fetch runs at a time, and all tokens that need it wait for it. If it
// fails, the known keys stay in use.
//
// A token that matches no known key is refused permanently only after a fetch that began after the token arrived. Anyone
// can make such tokens, so the fetches they cause are limited, per key id and in total. A token whose fetch would exceed
// a limit is refused temporarily (ErrKeysUnavailable). The total limit cannot lock out clients for long, because each
// fetch returns all keys.
type remote struct {
	url            string
	client         *http.Client
	log            *slog.Logger
	now            func() time.Time
	window, maxAge time.Duration

	fetches sync.WaitGroup

	mu      sync.Mutex
	closed  bool // no further fetches
	keys    []key
	fetched time.Time // when the last successful fetch began; zero if there was none
	tried   time.Time // when the last fetch began; zero if there was none
	begun   uint64    // number of fetches so far
	flight  *fetch    // the running fetch; nil if there is none
	failing bool      // the last fetch failed, and the failure was logged

	budget *rate.Limiter        // limits the fetches that tokens cause
	asked  map[string]time.Time // by key id, when a token last caused a fetch; the budget of one window limits its size
}

// fetch is one fetch of the keys. Its fields are written before done is closed.
type fetch struct {
	number uint64
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

func newRemote(cfg Config, opts Options) (*remote, error) {
	if err := checkURL(cfg.JWKSURL, cfg.JWKSAllowHTTP); err != nil {
		return nil, err
	}
	r := &remote{url: cfg.JWKSURL, client: opts.HTTPClient, log: opts.Log, now: opts.Now, window: cfg.JWKSRefresh, maxAge: cfg.JWKSMaxAge}
	if r.window <= 0 {
		r.window = 10 * time.Second
	}
	if r.maxAge <= 0 {
		r.maxAge = 10 * time.Minute
	}
	r.budget, r.asked = rate.NewLimiter(rate.Every(r.window), fetchBurst), map[string]time.Time{}
	if r.client == nil {
		r.client = &http.Client{
			Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	return r, nil
}

// checkURL refuses URLs that would let others on the network forge the keys.
func checkURL(raw string, allowHTTP bool) error {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return errors.New("the JWKS URL is not an https URL")
	}
	if u.Scheme == "http" && !allowHTTP {
		ip := net.ParseIP(u.Hostname())
		if u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return fmt.Errorf("the JWKS URL %s has no TLS and is on another machine; use https, or allow it", u.Redacted())
		}
	}
	return nil
}

// start fetches the keys for the first time, in the background.
func (r *remote) start() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.begin()
}

// ready waits for the first fetch. If it failed, ready starts another fetch, at most one per window.
func (r *remote) ready(ctx context.Context) error {
	r.mu.Lock()
	if r.fetched.IsZero() && r.flight == nil && r.now().Sub(r.tried) >= r.window {
		r.begin()
	}
	loaded, flight := !r.fetched.IsZero(), r.flight
	r.mu.Unlock()
	switch {
	case loaded:
		return nil
	case flight == nil:
		return ErrKeysUnavailable
	}
	if err := flight.wait(ctx); err != nil {
		return fmt.Errorf("%w: %w", ErrKeysUnavailable, err)
	}
	return nil
}

// find looks for keys that match a token, first among the known keys, then among the keys that the issuer has now. kid is
// the key id in the token. worth returns an error if the token is refused with any key, so that it does not cause a
// fetch.
func (r *remote) find(ctx context.Context, kid string, fits func([]key) bool, worth func() error) error {
	r.mu.Lock()
	before := r.begun
	if !r.fetched.IsZero() && r.now().Sub(r.fetched) >= r.maxAge && r.now().Sub(r.tried) >= r.window {
		r.begin() // refreshes the keys for later tokens; this token waits for the fetch only if no known key matches
	}
	keys, flight := r.keys, r.flight
	r.mu.Unlock()
	if fits(keys) {
		return nil
	}
	if err := worth(); err != nil {
		return err
	}
	for {
		if flight == nil {
			var err error
			if flight, err = r.ask(kid); err != nil {
				return err
			}
		}
		if err := flight.wait(ctx); err != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("fetching keys: %w", ctx.Err())
			}
			return ErrKeysUnavailable
		}
		number := flight.number
		r.mu.Lock()
		keys, flight = r.keys, r.flight
		r.mu.Unlock()
		switch {
		case fits(keys):
			return nil
		case number > before:
			return ErrSignature
		}
	}
}

// ask returns the running fetch, or begins a fetch because of a token if the limits allow it.
func (r *remote) ask(kid string) (*fetch, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if r.flight != nil {
		return r.flight, nil
	}
	if r.closed {
		return nil, ErrKeysUnavailable
	}
	if asked, known := r.asked[kid]; (known && now.Sub(asked) < r.window) || !r.budget.AllowN(now, 1) {
		return nil, fmt.Errorf("%w: no known key fits, and newer keys cannot be fetched yet", ErrKeysUnavailable)
	}
	maps.DeleteFunc(r.asked, func(_ string, asked time.Time) bool { return now.Sub(asked) >= r.window })
	r.asked[kid] = now
	return r.begin(), nil
}

// begin starts a fetch for all who wait. The caller holds r.mu, and no fetch is running. If the verifier is closed, begin
// returns a fetch that has ended.
func (r *remote) begin() *fetch {
	r.begun++
	flight := &fetch{number: r.begun, done: make(chan struct{})}
	if r.closed {
		flight.err = ErrKeysUnavailable
		close(flight.done)
		return flight
	}
	now := r.now()
	ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
	flight.cancel = cancel
	r.tried, r.flight = now, flight
	r.fetches.Go(func() {
		defer close(flight.done)
		defer cancel()
		keys, err := r.fetch(ctx)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.flight, flight.err = nil, err
		r.report(err)
		if err == nil {
			r.keys, r.fetched = keys, now
		}
	})
	return flight
}

// report logs the first failed fetch, and the first successful fetch after a failure. The caller holds r.mu.
func (r *remote) report(err error) {
	switch {
	case r.closed:
	case err != nil && !r.failing:
		r.failing = true
		r.log.Warn("the JWKS cannot be fetched; the known keys stay in force", "keys", len(r.keys), "error", err)
	case err == nil && r.failing:
		r.failing = false
		r.log.Info("the JWKS is fetched again")
	}
}

// wait waits for the fetch and returns its error, or ctx's error.
func (f *fetch) wait(ctx context.Context) error {
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *remote) fetch(ctx context.Context) ([]key, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url, nil)
	if err != nil {
		return nil, fmt.Errorf("fetching the JWKS: %w", err)
	}
	request.Header.Set("Accept", "application/jwk-set+json, application/json")
	response, err := r.client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("fetching the JWKS: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("fetching the JWKS from %s: %s", request.URL.Redacted(), response.Status)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxJWKSBytes+1))
	if err != nil {
		return nil, fmt.Errorf("fetching the JWKS from %s: %w", request.URL.Redacted(), err)
	}
	if len(body) > maxJWKSBytes {
		return nil, fmt.Errorf("the JWKS at %s is larger than %d bytes", request.URL.Redacted(), maxJWKSBytes)
	}
	keys, err := parseJWKS(body, r.log)
	if err != nil {
		return nil, fmt.Errorf("the JWKS at %s: %w", request.URL.Redacted(), err)
	}
	return keys, nil
}

func (r *remote) close() {
	r.mu.Lock()
	r.closed = true
	if r.flight != nil {
		r.flight.cancel()
	}
	r.mu.Unlock()
	r.fetches.Wait()
}
