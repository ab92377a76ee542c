package standalone

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
)

const (
	// devTokenTTL is the lifetime of a token from the sign-in page. The page fetches a new token before the old one
	// expires.
	devTokenTTL = time.Hour
	// maxWrongCodes is the number of wrong codes that are checked per wrongCodesFor. Above it, every code is refused
	// until that time is over.
	maxWrongCodes = 10
	wrongCodesFor = 10 * time.Second
	maxSignIn     = 1024
)

// signIn is the development sign-in: anyone who knows the code that the server printed at its start gets a token of any
// user.
//
// The code decides, not the address of a request: behind a proxy on this machine, every request comes from this machine.
// The code is valid until the process ends. In addition, the request must be addressed to this machine and must come from
// it directly. This keeps out pages of other sites, and requests through forgotten proxies.
type signIn struct {
	secret []byte
	code   string
	now    func() time.Time

	// mu guards the number of wrong codes in the window that ends at wrongUntil.
	mu         sync.Mutex
	wrong      int
	wrongUntil time.Time
}

// newSignIn returns a sign-in with a new code; nil without a secret.
func newSignIn(secret []byte) *signIn {
	if secret == nil {
		return nil
	}
	return &signIn{secret: secret, code: strings.ToLower(rand.Text()), now: time.Now}
}

func (s *signIn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s == nil {
		http.Error(w, "development sign-in is off: this server has an authentication setting", http.StatusForbidden)
		return
	}
	if header := forwarded(r.Header); header != "" {
		http.Error(w, "development sign-in is for this machine only, and the request came through a proxy ("+header+"): configure authentication", http.StatusForbidden)
		return
	}
	if !local(r) {
		http.Error(w, "development sign-in is for this machine only: open the link that the server printed at its start, on its machine", http.StatusForbidden)
		return
	}
	var request struct {
		User string `json:"user"`
		Code string `json:"code"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxSignIn)).Decode(&request); err != nil {
		http.Error(w, "the request must be a JSON object with user and code", http.StatusBadRequest)
		return
	}
	switch right, limited := s.check(request.Code); {
	case limited:
		http.Error(w, "too many wrong codes: wait a moment", http.StatusTooManyRequests)
		return
	case !right:
		http.Error(w, "the code is not the one of this run of the server: open the link that it printed at its start", http.StatusUnauthorized)
		return
	}
	if _, err := conversation.ParseUser(request.User); err != nil {
		http.Error(w, "user: "+err.Error(), http.StatusBadRequest)
		return
	}
	token, err := auth.Mint(s.secret, ids.User(request.User), devTokenTTL, s.now(), "", "")
	if err != nil {
		http.Error(w, "the token could not be made", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	// A token needs no escaping. If the client has disconnected, the error cannot be reported to it.
	_, _ = io.WriteString(w, `{"token":"`+token+`"}`+"\n")
}

// check compares a code in constant time. If there were too many wrong codes, it compares nothing and returns limited.
func (s *signIn) check(code string) (right, limited bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if !now.Before(s.wrongUntil) {
		s.wrong = 0
	}
	if s.wrong >= maxWrongCodes {
		return false, true
	}
	if subtle.ConstantTimeCompare([]byte(code), []byte(s.code)) == 1 {
		return true, false
	}
	if s.wrong == 0 {
		s.wrongUntil = now.Add(wrongCodesFor)
	}
	s.wrong++
	return false, false
}

// forwarded returns the name of a header in the request that only a proxy adds; empty if there is none.
func forwarded(header http.Header) string {
	for name := range header {
		lower := strings.ToLower(name)
		if strings.HasPrefix(lower, "x-forwarded") || strings.HasPrefix(lower, "cf-") || slices.Contains(proxyHeaders, lower) {
			return name
		}
	}
	return ""
}

// proxyHeaders are the names, in lower case, of headers that proxies and content networks add.
var proxyHeaders = []string{
	"forwarded", "via", "x-real-ip", "x-client-ip", "client-ip", "x-cluster-client-ip", "true-client-ip", "fastly-client-ip",
	"x-original-forwarded-for", "x-original-host", "x-original-url", "x-envoy-external-address", "x-envoy-original-path",
	"x-azure-clientip", "x-azure-fdid", "x-appengine-user-ip", "x-amzn-trace-id", "x-amz-cf-id", "cdn-loop", "x-proxyuser-ip",
}

// local reports whether a request comes from this machine and is addressed to it. It checks Host, because a page of
// another site can make its own name resolve to this machine. It checks Origin and Sec-Fetch-Site, because a script of
// such a page can send requests.
func local(r *http.Request) bool {
	if !loopback(r.RemoteAddr) || !loopback(r.Host) {
		return false
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
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
		host = strings.Trim(address, "[]")
	}
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}
