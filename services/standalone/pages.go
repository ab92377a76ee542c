package standalone

import (
	"embed"
	"encoding/json"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/conversation"
)

//go:embed web
var web embed.FS

// devTokenTTL is the lifetime of a token from the sign-in page; the page fetches a new one before it expires.
const devTokenTTL = time.Hour

// pages serves the small chat page. With a development secret it also signs in every user on this machine: that makes the
// first steps easy, and it is off once an authentication setting is set.
func pages(secret []byte) (http.Handler, error) {
	files, err := fs.Sub(web, "web")
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /", secured(http.FileServerFS(files)))
	mux.HandleFunc("POST /dev/token", func(w http.ResponseWriter, r *http.Request) {
		if secret == nil || !local(r) {
			http.Error(w, "development sign-in is off: this server has an authentication setting, or the request is not from its machine", http.StatusForbidden)
			return
		}
		var request struct {
			User string `json:"user"`
		}
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1024)).Decode(&request); err != nil || !conversation.ValidUser(request.User) {
			http.Error(w, "user: "+conversation.UserRule, http.StatusBadRequest)
			return
		}
		token, err := auth.Mint(secret, request.User, devTokenTTL, time.Now(), "", "")
		if err != nil {
			http.Error(w, "the token could not be made", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_ = json.NewEncoder(w).Encode(map[string]string{"token": token}) // the client has disconnected, so the error cannot be reported
	})
	return mux, nil
}

// local reports whether a request comes from this machine and is addressed to it. The Host is checked because a page of
// another site could let its own name resolve to this machine, and the Origin because a script of that page could send
// requests.
func local(r *http.Request) bool {
	if !loopback(r.RemoteAddr) || !loopback(r.Host) {
		return false
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host == r.Host
}

func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}

func secured(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'self'; img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		next.ServeHTTP(w, r)
	})
}
