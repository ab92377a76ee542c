// Package metrics counts a gateway's work for Prometheus. Labels come from fixed catalogues only, and every series exists from
// the start. It never reads the gateway: package operator registers the metrics that are measured at each scrape.
package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/errcode"
)

// Metrics are the counters of one gateway. Make them with New.
type Metrics struct {
	Connections, Rooms, DrainLeft  prometheus.Gauge
	Connects, Revoked              prometheus.Counter
	FramesIn, BytesIn              prometheus.Counter
	FramesOut, BytesOut, Writes    prometheus.Counter
	Deliveries, Retries, Repeats   prometheus.Counter
	Gaps, GapEvents, Filled        prometheus.Counter
	Forks, Reloads, Holes          prometheus.Counter
	EarlyAcks                      prometheus.Counter
	Accepted, Committed, Delivered prometheus.Observer
	closes                         map[errcode.CloseCode]prometheus.Counter
	closesOther                    prometheus.Counter
	refusals                       map[conversationv1.ErrorCode]prometheus.Counter
	Outcomes                       map[string]prometheus.Counter
	Limits                         [numLimits]prometheus.Counter
	Rejects                        [numRejects]prometheus.Counter
	Reads                          [numReads]prometheus.Counter
}

// Limit is a limit that a client exceeded.
type Limit int

// The limits.
const (
	LimitConnections Limit = iota
	LimitConnectRate
	LimitUserConnections
	LimitIPConnections
	LimitIPConnectRate
	LimitFrameRate
	LimitFrameBytes
	LimitCommandRate
	LimitCommands
	LimitCalls
	LimitSendQueue
	LimitNetworkConnections
	LimitNetworkConnectRate
	LimitUnauthenticatedBytes
	LimitReadRate
	LimitAddRate
	LimitConversations
	numLimits
)

// A limit that has a setting has the setting's name.
var limitNames = [numLimits]string{
	"max_connections", "connect_rate", "max_connections_per_user", "max_connections_per_ip", "connect_rate_per_ip",
	"frame_rate", "max_frame_bytes", "command_rate_per_user", "max_commands", "calls_per_connection", "send_queue_bytes",
	"max_connections_per_network", "connect_rate_per_network", "max_unauthenticated_bytes",
	"read_rate_per_user", "add_rate_per_user", "max_conversations_per_user",
}

// Reject is the reason why a connection was refused, before or after it was accepted.
type Reject int

// The reasons.
const (
	RejectDraining Reject = iota
	RejectLimit
	RejectSubprotocol
	RejectHandshake
	RejectProtocol
	RejectToken
	RejectExpired
	RejectRevoked
	RejectUnavailable
	numRejects
)

var rejectNames = [numRejects]string{
	"draining", "limit", "subprotocol", "handshake", "protocol", "token", "token_expired", "token_revoked", "unavailable",
}

// ReadPurpose is the purpose of a call of the history service.
type ReadPurpose int

// The purposes.
const (
	ReadGap ReadPurpose = iota
	ReadBehind
	ReadPast
	ReadClient
	ReadList
	ReadMembers
	ReadHeads
	ReadRevocations
	ReadInstallation
	ReadViews
	ReadCompare
	ReadMemberships
	ReadCounts
	numReads
)

var readNames = [numReads]string{"gap", "behind", "past", "client", "list", "members", "heads", "revocations", "installation", "views", "compare", "memberships", "counts"}

// latencyBuckets range from the latency of a standalone server to the timeout of a client.
var latencyBuckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}

// New registers all series.
func New(registerer prometheus.Registerer) *Metrics {
	m := &Metrics{
		closes:   map[errcode.CloseCode]prometheus.Counter{},
		refusals: map[conversationv1.ErrorCode]prometheus.Counter{},
		Outcomes: map[string]prometheus.Counter{},
	}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "runnel", Subsystem: "gateway", Name: name, Help: help})
		registerer.MustRegister(g)
		return g
	}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "runnel", Subsystem: "gateway", Name: name, Help: help})
		registerer.MustRegister(c)
		return c
	}
	vector := func(name, help, label string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "runnel", Subsystem: "gateway", Name: name, Help: help}, []string{label})
		registerer.MustRegister(v)
		return v
	}
	m.Connections = gauge("connections", "Live connections.")
	m.Rooms = gauge("rooms", "Conversations with a subscription on this gateway; each is a subscription on NATS.")
	m.DrainLeft = gauge("drain_left", "Connections that are still to be closed, while the gateway is being stopped.")
	m.Connects = counter("connects_total", "Connections taken.")
	m.Revoked = counter("revoked_total", "Connections closed because their token was revoked.")
	m.FramesIn = counter("frames_in_total", "Frames from clients.")
	m.FramesOut = counter("frames_out_total", "Frames queued to clients.")
	m.BytesIn = counter("bytes_in_total", "Bytes of frames from clients.")
	m.BytesOut = counter("bytes_out_total", "Bytes written to clients.")
	m.Writes = counter("writes_total", "Writes to sockets; one may carry many frames.")
	m.Deliveries = counter("deliveries_total", "Events queued to connections.")
	m.Retries = counter("retries_total", "Times that unacknowledged events were sent again.")
	m.Repeats = counter("repeats_total", "Live events that were already known, and dropped.")
	m.Gaps = counter("gaps_total", "Live messages with a gap before them.")
	m.GapEvents = counter("gap_events_total", "Events read from history to fill such gaps.")
	m.Filled = counter("filled_total", "Events queued by fillers: on resume, as a repeat, or because the client was behind.")
	m.Forks = counter("forks_total", "Clients told that their position is not on the log: the store was restored, or lost events.")
	m.Reloads = counter("reloads_total", "Conversations reloaded because the store's log differs from the one that clients were sent.")
	m.Holes = counter("holes_total", "Reads of history in which an event was missing; each is tried again.")
	m.EarlyAcks = counter("ack_positions_skipped_total", "Positions in acknowledgements that name an event which does not exist.")
	closes := vector("closes_total", "Connections ended, by close code.", "code")
	for _, code := range errcode.CloseCodes {
		m.closes[code.Code] = closes.WithLabelValues(code.Name)
	}
	m.closesOther = closes.WithLabelValues("other") // close codes of clients that are not in the catalogue
	refusals := vector("refusals_total", "Requests refused, by error code.", "reason")
	outcomes := vector("commands_total", "Commands answered, by outcome.", "outcome")
	for _, code := range errcode.Codes {
		m.refusals[code.Code] = refusals.WithLabelValues(code.Name)
		m.Outcomes[code.Name] = outcomes.WithLabelValues(code.Name)
	}
	for _, name := range []string{OutcomeCommitted, OutcomeRepeated, OutcomeUnknown} {
		m.Outcomes[name] = outcomes.WithLabelValues(name)
	}
	resolve(m.Limits[:], limitNames[:], vector("limit_refusals_total", "Times that a client exceeded a limit, by limit.", "limit"))
	resolve(m.Rejects[:], rejectNames[:], vector("connects_refused_total", "Connections refused before or after they were accepted, by reason.", "reason"))
	resolve(m.Reads[:], readNames[:], vector("history_calls_total", "Calls of the history service, by purpose.", "purpose"))
	latency := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: "runnel", Subsystem: "gateway", Name: "command_seconds",
		Help: "Time from a command's frame to each stage. For delivered it is the time from the event's own time, which " +
			"is the broker's, to the first acknowledgement by a client of another user, for events that were sent to one at once.",
		Buckets: latencyBuckets,
	}, []string{"rung"})
	registerer.MustRegister(latency)
	m.Accepted, m.Committed, m.Delivered = latency.WithLabelValues("accepted"), latency.WithLabelValues("committed"), latency.WithLabelValues("delivered")
	return m
}

func resolve(counters []prometheus.Counter, names []string, vector *prometheus.CounterVec) {
	for i, name := range names {
		counters[i] = vector.WithLabelValues(name)
	}
}

// Outcomes that are not error codes.
const (
	OutcomeCommitted = "committed"
	OutcomeRepeated  = "repeated"
	OutcomeUnknown   = "unknown" // errcode.Name returns this for a code that this version does not know
)

// Refused counts an answer that is an error.
func (m *Metrics) Refused(code conversationv1.ErrorCode) {
	if counter := m.refusals[code]; counter != nil {
		counter.Inc()
	}
}

// Closed counts a connection that ended.
func (m *Metrics) Closed(code errcode.CloseCode) {
	if counter := m.closes[code]; counter != nil {
		counter.Inc()
		return
	}
	m.closesOther.Inc()
}

// Outcome counts the answer of a command and how long it took.
func (m *Metrics) Outcome(outcome *conversationv1.Outcome, took time.Duration) {
	switch {
	case outcome.GetError() != nil:
		m.Outcomes[errcode.Name(outcome.GetError().GetCode())].Inc()
	case outcome.GetRepeated():
		m.Outcomes[OutcomeRepeated].Inc()
	default:
		m.Outcomes[OutcomeCommitted].Inc()
		m.Committed.Observe(took.Seconds())
	}
}
