package telemetry

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"strings"
)

// guard tells operators from others. Without a token those are operators who speak to the machine itself, see sameMachine.
type guard struct {
	token bool
	want  [sha256.Size]byte
}

func newGuard(token string) guard {
	return guard{token: token != "", want: sha256.Sum256([]byte(token))}
}

// lets reports whether a request is an operator's.
func (g guard) lets(r *http.Request) bool {
	if !g.token {
		return sameMachine(r)
	}
	shown := sha256.Sum256([]byte(shownToken(r))) // hashed, so that comparing takes the same time for any length
	return subtle.ConstantTimeCompare(shown[:], g.want[:]) == 1
}

// before lets only operators' requests through.
func (g guard) before(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case g.lets(r):
			next.ServeHTTP(w, r)
		case g.token:
			w.Header().Set("WWW-Authenticate", `Basic realm="the admin token is the password", charset="UTF-8"`)
			http.Error(w, "show the admin token: as a bearer token, or as the password of any user", http.StatusUnauthorized)
		default:
			http.Error(w, "ask for localhost or an address", http.StatusForbidden)
		}
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
func sameMachine(r *http.Request) bool {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return host == "localhost" || net.ParseIP(strings.Trim(host, "[]")) != nil
}

// isLoopback reports whether only this machine can reach the address.
func isLoopback(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}
