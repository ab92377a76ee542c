package telemetry

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"

	"github.com/runnelhq/runnel/pkg/listen"
	"github.com/runnelhq/runnel/pkg/watched"
)

// guard distinguishes operators from other callers. Without a token, the server listens only on loopback. Then every
// caller who connects directly, using a name that only this machine has, counts as an operator.
type guard struct {
	token *watched.Files[string] // nil if no token is configured
}

// minToken is the minimum length of a token; shorter tokens could be guessed.
const minToken = 16

// newGuard reads the token in the configuration. A token file is read again when it changes.
func newGuard(cfg AdminConfig, log *slog.Logger) (guard, error) {
	if cfg.Token == "" && cfg.TokenFile == "" {
		return guard{}, nil
	}
	if err := cfg.checkToken(); err != nil {
		return guard{}, err
	}
	var paths []string
	if cfg.TokenFile != "" {
		paths = append(paths, cfg.TokenFile)
	}
	token, err := watched.Load(watched.Config[string]{
		Paths: paths,
		Read: func() (token string, err error) {
			if token = cfg.Token; cfg.TokenFile != "" {
				token, err = watched.ReadSecret(cfg.TokenFile)
			}
			if err == nil {
				err = checkLength(token)
			}
			return token, err
		},
		Replaced: func(string) { log.Info("the admin token was read again") },
		Refused: func(err error) {
			log.Error("the new admin token cannot be used; the previous one stays in force", "error", err)
		},
	})
	if err != nil {
		return guard{}, fmt.Errorf("admin server: %w", err)
	}
	return guard{token: token}, nil
}

// checkToken checks the settings of the token. The content of a token file is checked when it is read.
func (c AdminConfig) checkToken() error {
	if c.Token != "" && c.TokenFile != "" {
		return errors.New("admin server: the token and a file for it are both set; set one")
	}
	if c.Token == "" {
		return nil
	}
	if err := checkLength(c.Token); err != nil {
		return fmt.Errorf("admin server: %w", err)
	}
	return nil
}

func checkLength(token string) error {
	if len(token) < minToken {
		return fmt.Errorf("the token has %d characters; at least %d are needed", len(token), minToken)
	}
	return nil
}

// lets reports whether a request comes from an operator.
func (g guard) lets(r *http.Request) bool {
	if g.token == nil {
		return isForOwnName(r) && !isForwarded(r)
	}
	shown, want := sha256.Sum256([]byte(shownToken(r))), sha256.Sum256([]byte(g.token.Current()))
	return subtle.ConstantTimeCompare(shown[:], want[:]) == 1 // compares hashes, so that the comparison takes the same time for any length
}

// before passes only operators' requests to next.
func (g guard) before(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case g.lets(r):
			// Without a token every user of this machine is an operator, so the limits on unauthenticated connections
			// stay in force.
			if g.token == nil || listen.Authenticated(r.Context()) { // false if the connection was already closed
				next.ServeHTTP(w, r)
			}
		case g.token != nil:
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

// isForOwnName reports whether the request was sent to localhost or to an IP address. A web page can make its own domain
// name resolve to 127.0.0.1 (DNS rebinding), so that the browser lets it read the answers. But the browser then sends
// that domain name.
func isForOwnName(r *http.Request) bool {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return host == "localhost" || net.ParseIP(strings.Trim(host, "[]")) != nil
}

// isForwarded reports whether a proxy forwarded the request for another client.
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
