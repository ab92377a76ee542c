package admission

import (
	"math/rand/v2"
	"net/http"
	"strconv"

	"github.com/runnelhq/runnel/services/gateway/metrics"
)

// Refusal is the reason why a connection is not accepted.
type Refusal struct {
	status    int
	reason    string
	because   metrics.Reject
	limit     metrics.Limit // only with RejectLimit
	ofAddress bool          // the exceeded limit is a limit per address
}

var (
	refusedUnready     = &Refusal{http.StatusServiceUnavailable, "the gateway is not ready", metrics.RejectUnavailable, 0, false}
	refusedDraining    = &Refusal{http.StatusServiceUnavailable, "the gateway is being stopped", metrics.RejectDraining, 0, false}
	refusedFull        = &Refusal{http.StatusServiceUnavailable, "the gateway is full", metrics.RejectLimit, metrics.LimitConnections, false}
	refusedStorm       = &Refusal{http.StatusServiceUnavailable, "too many new connections at once", metrics.RejectLimit, metrics.LimitConnectRate, false}
	refusedAddress     = &Refusal{http.StatusTooManyRequests, "too many connections from this address", metrics.RejectLimit, metrics.LimitIPConnections, true}
	refusedNetwork     = &Refusal{http.StatusTooManyRequests, "too many connections from this network", metrics.RejectLimit, metrics.LimitNetworkConnections, true}
	refusedNetworkRate = &Refusal{http.StatusTooManyRequests, "too many new connections from this network", metrics.RejectLimit, metrics.LimitNetworkConnectRate, true}
	refusedRate        = &Refusal{http.StatusTooManyRequests, "too many new connections from this address", metrics.RejectLimit, metrics.LimitIPConnectRate, true}
)

// Answer writes the refusal as the answer of an HTTP request.
func (r *Refusal) Answer(w http.ResponseWriter) {
	// Clients that are refused together must not reconnect in the same second.
	w.Header().Set("Retry-After", strconv.Itoa(1+rand.N(5)))
	http.Error(w, r.reason, r.status)
}

func (r *Refusal) count(m *metrics.Metrics) {
	m.Rejects[r.because].Inc()
	if r.because == metrics.RejectLimit {
		m.Limits[r.limit].Inc()
	}
}
