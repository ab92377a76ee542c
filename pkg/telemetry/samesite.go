package telemetry

import (
	"net/http"
	"net/url"
	"slices"
)

// probePaths show no more than whether the service is well. A browser may follow a link to them from anywhere.
var probePaths = []string{"/livez", "/healthz", "/readyz"}

// sameSite refuses requests that a browser makes for a page of another site. Such a page cannot show a token, but it runs on the
// operator's machine, from which an admin server on loopback takes every request; and a browser that has the token adds it by
// itself. Programs such as Prometheus and curl send neither Origin nor Sec-Fetch-Site, so nothing changes for them.
//
// A site whose name points to this machine (DNS rebinding) passes here, because its browser regards the request as its own. The
// guard refuses it by its Host.
func sameSite(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// What is answered may not be shown or read by another site either.
		w.Header().Set("Cross-Origin-Resource-Policy", "same-origin")
		w.Header().Set("Cross-Origin-Opener-Policy", "same-origin")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("X-Frame-Options", "DENY")
		if isCrossSite(r) {
			refuseCrossSite.write(w)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// isCrossSite reports whether a browser sent the request for a page of another origin. Ports of one host are one site and several
// origins, so a page on another port of this machine is refused as well.
func isCrossSite(r *http.Request) bool {
	if origin := r.Header.Get("Origin"); origin != "" && !isOwnOrigin(origin, r) {
		return true
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return false
	default: // cross-site, same-site, and whatever browsers may send in the future
		return !slices.Contains(probePaths, r.URL.Path)
	}
}

// isOwnOrigin reports whether the origin is the server that the request was sent to. The scheme is not compared: a proxy may add
// TLS.
func isOwnOrigin(origin string, r *http.Request) bool {
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && u.Host == r.Host
}
