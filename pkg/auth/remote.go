package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"
)

const (
	// fetchTimeout is short because clients wait for the fetch after they have sent their first frame.
	fetchTimeout = 5 * time.Second
	maxJWKSBytes = 1 << 20
)

// remote holds the keys of a JWKS URL. They are fetched at most once per window, by one fetch at a time, which all callers
// that need it wait for. If a fetch fails, the previous keys are kept.
type remote struct {
	url            string
	client         *http.Client
	log            *slog.Logger
	now            func() time.Time
	window, maxAge time.Duration

	fetches sync.WaitGroup

	mu      sync.Mutex
	closed  bool               // closed: no further fetches
	cancel  context.CancelFunc // ends the last fetch; nil before the first
	keys    []key
	fetched time.Time     // when keys were received; zero: never
	tried   time.Time     // when the last fetch began; zero: never
	err     error         // error of the last fetch
	flight  chan struct{} // closed when the running fetch ends; nil when there is none
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

// current returns the known keys. If they are too old it begins a fetch, and does not wait for it.
func (r *remote) current(ctx context.Context) []key {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.fetched.IsZero() && r.now().Sub(r.fetched) >= r.maxAge {
		r.begin(ctx)
	}
	return r.keys
}

func (r *remote) loaded() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.fetched.IsZero()
}

// failing reports whether the last fetch failed.
func (r *remote) failing() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err != nil
}

// refresh waits for a fetch to end, its own or a running one, or for ctx. Within the window after the last fetch it does
// nothing.
func (r *remote) refresh(ctx context.Context) {
	r.mu.Lock()
	flight := r.begin(ctx)
	r.mu.Unlock()
	if flight == nil {
		return
	}
	select {
	case <-flight:
	case <-ctx.Done():
	}
}

// begin starts a fetch unless one is running, or began within the window, or the verifier is closed. It returns the channel
// that is closed when the running fetch ends. The fetch serves all callers that wait, so it outlives ctx. r.mu is held.
func (r *remote) begin(ctx context.Context) chan struct{} {
	if r.flight != nil {
		return r.flight
	}
	now := r.now()
	if r.closed || (!r.tried.IsZero() && now.Sub(r.tried) < r.window) {
		return nil
	}
	flight := make(chan struct{})
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
	r.tried, r.flight, r.cancel = now, flight, cancel
	r.fetches.Go(func() {
		defer close(flight)
		defer cancel()
		keys, err := r.fetch(ctx)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.flight, r.err = nil, err
		if err != nil && !r.closed {
			r.log.WarnContext(ctx, "the JWKS cannot be fetched; the known keys are kept", "error", err)
		}
		if err == nil {
			r.keys, r.fetched = keys, now
		}
	})
	return flight
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
	if r.cancel != nil {
		r.cancel()
	}
	r.mu.Unlock()
	r.fetches.Wait()
}
