package telemetry

import (
	"net/http"
	"net/url"
	"slices"
)

// probePaths show only whether the service is healthy. A browser may follow links to them from any site.
var probePaths = []string{"/livez", "/healthz", "/readyz"}

// sameSite refuses requests that a browser makes for a page of another site. Such a page does not know the token. But it runs on the
// operator's machine, from which an admin server on loopback accepts every request. And if the browser has the token, it adds it by
// itself. Programs such as Prometheus and curl send neither Origin nor Sec-Fetch-Site, so they are not affected.
//
// A site whose name points to this machine (DNS rebinding) passes this check, because the browser regards the request as same-site. The
// guard refuses it because of its Host header.
func sameSite(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Other sites may not embed or read the answer either.
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

// isCrossSite reports whether a browser sent the request for a page of another origin. Ports of one host belong to the
// same site but are different origins, so a page on another port of this machine is refused too.
func isCrossSite(r *http.Request) bool {
	if origin := r.Header.Get("Origin"); origin != "" && !isOwnOrigin(origin, r) {
		return true
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return false
	default: // cross-site, same-site, and values that browsers may send in the future
		return !slices.Contains(probePaths, r.URL.Path)
	}
}

// isOwnOrigin reports whether the origin is the server to which the request was sent. The scheme is not compared, because
// a proxy may add TLS.
func isOwnOrigin(origin string, r *http.Request) bool {
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && u.Host == r.Host
}
