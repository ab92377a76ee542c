package telemetry

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"strings"
)

// guard lets requests through that show the token. Without a token it lets through who speaks to the machine itself, see
// sameMachine.
func guard(token string, next http.Handler) http.Handler {
	if token == "" {
		return sameMachine(next)
	}
	want := sha256.Sum256([]byte(token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shown := sha256.Sum256([]byte(shownToken(r))) // hashed, so that comparing takes the same time for any length
		if subtle.ConstantTimeCompare(shown[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", `Basic realm="the admin token is the password", charset="UTF-8"`)
			http.Error(w, "show the admin token: as a bearer token, or as the password of any user", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func shownToken(r *http.Request) string {
	if _, password, ok := r.BasicAuth(); ok {
		return password
	}
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return token
}

// sameMachine refuses requests that were sent to a name other than localhost: a page on the web can make a browser on this
// machine send those, by letting its own name point to 127.0.0.1, and read the answers.
func sameMachine(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		if host != "localhost" && net.ParseIP(strings.Trim(host, "[]")) == nil {
			http.Error(w, "ask for localhost or an address", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// isLoopback reports whether only this machine can reach the address.
func isLoopback(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}
