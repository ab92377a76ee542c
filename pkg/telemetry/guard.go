package telemetry

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"strings"

	"github.com/runnelhq/runnel/pkg/listen"
)

// guard tells operators from others. Without a token the server listens on loopback only, and operators are all who reach it
// directly, under a name that only this machine has.
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
		return isForOwnName(r) && !isForwarded(r)
	}
	shown := sha256.Sum256([]byte(shownToken(r))) // hashed, so that comparing takes the same time for any length
	return subtle.ConstantTimeCompare(shown[:], g.want[:]) == 1
}

// before lets only operators' requests through.
func (g guard) before(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case g.lets(r):
			if listen.Authenticated(r.Context()) { // if not, its connection is closed already
				next.ServeHTTP(w, r)
			}
		case g.token:
			w.Header().Set("WWW-Authenticate", `Basic realm="the admin token is the password", charset="UTF-8"`)
			refuseToken.write(w)
		case !isForOwnName(r):
			refuseHost.write(w)
		default:
			refuseForwarded.write(w)
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

// isForOwnName reports whether the request was sent to localhost or an address. A page on the web can let its own name point to
// 127.0.0.1 (DNS rebinding); then the browser lets it read the answers, but sends that name.
func isForOwnName(r *http.Request) bool {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return host == "localhost" || net.ParseIP(strings.Trim(host, "[]")) != nil
}

// isForwarded reports whether a proxy says that the request comes from somebody else.
func isForwarded(r *http.Request) bool {
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "Via"} {
		if r.Header.Get(name) != "" {
			return true
		}
	}
	return false
}

// isLoopback reports whether only this machine can reach the address.
func isLoopback(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}
