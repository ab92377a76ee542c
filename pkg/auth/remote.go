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
	// fetchTimeout is short because clients wait for the fetch after they have sent their first frame.
	fetchTimeout = 5 * time.Second
	maxJWKSBytes = 1 << 20
)

// fetchBurst is how many fetches tokens may cause in a row before they share one per window.
const fetchBurst = 4

// remote holds the keys of a JWKS URL. One fetch runs at a time, and all who need it wait for it; when it fails, the keys
// that were there stay.
//
// A token that fits no known key is refused for good only after a fetch that began when the token was there already. Anybody
// can make up such tokens, so the fetches that they cause are limited, per key id and in all; a token for which no fetch can
// be made is refused for now (ErrKeysUnavailable). The limit in all cannot lock out anybody for long: every fetch brings all
// keys.
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
	fetched time.Time // when the fetch that brought keys began; zero: never
	tried   time.Time // when the last fetch began; zero: never
	begun   uint64    // fetches so far
	flight  *fetch    // the fetch under way; nil when there is none
	failing bool      // the last fetch failed, and that was logged

	budget *rate.Limiter        // of the fetches that tokens cause
	asked  map[string]time.Time // when a token with this key id last caused a fetch; at most as many as budget allows in a window
}

// fetch is one fetch. The fields are written before done is closed.
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

// checkURL refuses URLs with which others on the network could choose the keys.
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

// ready waits for the first fetch, and makes another one unless the last was within the window.
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

// find looks for keys that fit a token: among the known ones, and if none does, among those that the issuer has now. kid is the
// key id that the token names. worth says whether the token is worth a fetch, or why it is refused in any case.
func (r *remote) find(ctx context.Context, kid string, fits func([]key) bool, worth func() error) error {
	r.mu.Lock()
	before := r.begun
	if !r.fetched.IsZero() && r.now().Sub(r.fetched) >= r.maxAge && r.now().Sub(r.tried) >= r.window {
		r.begin() // for later tokens; this one does not wait for it unless it has to
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

// ask begins a fetch because of a token, or returns the one under way, unless that would be more fetches than allowed.
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

// begin starts a fetch, which is for all who wait. r.mu is held; no fetch is under way. It returns an ended fetch if the
// verifier is closed.
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

// report logs that fetches begin to fail, and that they succeed again. r.mu is held.
func (r *remote) report(err error) {
	switch {
	case r.closed:
	case err != nil && !r.failing:
		r.failing = true
		r.log.Warn("the JWKS cannot be fetched; the keys that are known stay", "keys", len(r.keys), "error", err)
	case err == nil && r.failing:
		r.failing = false
		r.log.Info("the JWKS is fetched again")
	}
}

// wait returns the fetch's error, or that of ctx.
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
