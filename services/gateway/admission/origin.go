package admission

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// Remote returns the client's address without port: the peer's address, or the address that the trusted proxies report.
// Each proxy appends the address of its caller to X-Forwarded-For; a client can forge the entries further left.
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
	if err != nil || !strings.EqualFold(u.Host, r.Host) {
		return false
	}
	return r.TLS == nil || u.Scheme == "https" // behind a proxy that ends TLS, the client's scheme is not known
}

// CheckOrigin returns an error if a configured origin can match no origin that a browser sends. An origin is a scheme, a
// host and optionally a port; browsers omit the default port.
func CheckOrigin(origin string) error {
	if origin == "*" {
		return nil
	}
	wrong := func(why string) error {
		return fmt.Errorf("%q is no origin such as https://chat.example.com: %s", origin, why)
	}
	u, err := url.Parse(origin)
	switch {
	case strings.TrimSpace(origin) != origin:
		return wrong("it has spaces around it")
	case strings.Contains(origin, "*"):
		return wrong("* stands for all origins, not for a part of one")
	case err != nil:
		return wrong("it is no URL")
	case u.Scheme == "" || u.Host == "":
		return wrong("it needs a scheme and a host")
	case u.Scheme+"://"+u.Host != origin:
		return wrong("nothing may follow the host and the port, not even a slash")
	case u.Scheme == "https" && u.Port() == "443" || u.Scheme == "http" && u.Port() == "80":
		return wrong("browsers leave out the default port")
	}
	return nil
}

// suspectProxy warns the operator when clients seem to come through a proxy that is not configured. Behind such a proxy
// all clients appear to have one address, and share its limits.
func (g *Gate) suspectProxy(r *http.Request) {
	if g.cfg.TrustedProxies == 0 && r.Header.Get("X-Forwarded-For") != "" {
		g.cfg.Log.Warn("connections through a proxy are refused by the limits for one address; count the proxies in --gateway.trusted-proxies",
			"proxy", r.RemoteAddr)
	}
}
