package admission

import (
	"net"
	"net/http"
	"net/url"
	"strings"
)

// Remote is the client's address without port: the peer's address, or the one that the trusted proxies in front report. Each
// proxy appends the address that called it; entries further left cannot be trusted.
func (g *Gate) Remote(r *http.Request) string {
	if n := g.cfg.TrustedProxies; n > 0 {
		hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
		if len(hops) >= n {
			hop := strings.TrimSpace(hops[len(hops)-n])
			if host, _, err := net.SplitHostPort(hop); err == nil {
				hop = host // some proxies write the port as well
			}
			if ip := net.ParseIP(strings.Trim(hop, "[]")); ip != nil {
				return ip.String()
			}
		}
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// OriginAllowed reports whether the request's Origin may connect. It stops pages of other sites from using the network position of
// their visitors' browsers. Programs other than browsers send no Origin and are allowed.
func (g *Gate) OriginAllowed(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	for _, allowed := range g.cfg.AllowedOrigins {
		if allowed == "*" || strings.EqualFold(allowed, origin) {
			return true
		}
	}
	u, err := url.Parse(origin)
	return err == nil && strings.EqualFold(u.Host, r.Host)
}

// suspectProxy warns the operator when clients seem to come through a proxy that is not configured: then all clients appear to
// have one address, and share its limits.
func (g *Gate) suspectProxy(r *http.Request) {
	if g.cfg.TrustedProxies == 0 && r.Header.Get("X-Forwarded-For") != "" {
		g.cfg.Log.Warn("connections through a proxy are refused by the limits for one address; count the proxies in --gateway.trusted-proxies",
			"proxy", r.RemoteAddr)
	}
}
