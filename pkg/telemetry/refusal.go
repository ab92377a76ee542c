package telemetry

import "net/http"

// refusal is the reason why a request is refused: a code for programs, and advice for people.
type refusal struct {
	status int
	code   string
	text   string
}

// The possible refusals of the admin server.
var (
	refuseCrossSite = refusal{
		http.StatusForbidden, "cross_site",
		"a page of another site asked for this. Type the address into the browser's address bar instead of following a link; a program must not send Origin or Sec-Fetch-Site.",
	}
	refuseHost = refusal{
		http.StatusForbidden, "wrong_host",
		"without an admin token this server answers only to localhost or an IP address. Use http://127.0.0.1 with the same port, or set RUNNEL_ADMIN_TOKEN.",
	}
	refuseForwarded = refusal{
		http.StatusForbidden, "forwarded",
		"a proxy forwarded this request, and without an admin token the server cannot tell who sent it. Set RUNNEL_ADMIN_TOKEN, or ask on the machine itself.",
	}
	refuseToken = refusal{
		http.StatusUnauthorized, "token_required",
		"send the admin token as a bearer token, or as the password of any user.",
	}
)

// write answers a request with the refusal.
func (f refusal) write(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, f.code+": "+f.text, f.status)
}
