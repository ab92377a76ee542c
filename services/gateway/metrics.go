package gateway

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/errcode"
)

// metrics counts what a gateway does. Labels come from fixed catalogues only, and every series is there from the start.
type metrics struct {
	registerer                     prometheus.Registerer
	connections, rooms, drainLeft  prometheus.Gauge
	connects, revoked              prometheus.Counter
	framesIn, bytesIn              prometheus.Counter
	framesOut, bytesOut, writes    prometheus.Counter
	deliveries, retries, repeats   prometheus.Counter
	gaps, gapEvents, filled        prometheus.Counter
	forks, reloads, holes          prometheus.Counter
	earlyAcks                      prometheus.Counter
	accepted, committed, delivered prometheus.Observer
	closes                         map[errcode.CloseCode]prometheus.Counter
	closesOther                    prometheus.Counter
	refusals                       map[conversationv1.ErrorCode]prometheus.Counter
	outcomes                       map[string]prometheus.Counter
	limits                         [numLimits]prometheus.Counter
	rejects                        [numRejects]prometheus.Counter
	reads                          [numReads]prometheus.Counter
}

// limit is one that a client ran into.
type limit int

const (
	limitConnections limit = iota
	limitConnectRate
	limitUserConnections
	limitIPConnections
	limitIPConnectRate
	limitFrameRate
	limitFrameBytes
	limitCommandRate
	limitCommands
	limitCalls
	limitSendQueue
	numLimits
)

// The names are those of the settings, where there is one.
var limitNames = [numLimits]string{
	"max_connections", "connect_rate", "max_connections_per_user", "max_connections_per_ip", "connect_rate_per_ip",
	"frame_rate", "max_frame_bytes", "command_rate_per_user", "max_commands", "calls_per_connection", "send_queue_bytes",
}

// reject is why a connection was not taken, or not let in.
type reject int

const (
	rejectDraining reject = iota
	rejectLimit
	rejectSubprotocol
	rejectHandshake
	rejectProtocol
	rejectToken
	rejectExpired
	rejectRevoked
	rejectUnavailable
	numRejects
)

var rejectNames = [numRejects]string{
	"draining", "limit", "subprotocol", "handshake", "protocol", "token", "token_expired", "token_revoked", "unavailable",
}

// readPurpose is what the history service is called for.
type readPurpose int

const (
	readGap readPurpose = iota
	readBehind
	readPast
	readClient
	readList
	readMembers
	readHeads
	readRevocations
	readInstallation
	readViews
	numReads
)

var readNames = [numReads]string{"gap", "behind", "past", "client", "list", "members", "heads", "revocations", "installation", "views"}

// latencyBuckets begin where a standalone server answers and end where a client gives up.
var latencyBuckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}

func newMetrics(registerer prometheus.Registerer) *metrics {
	m := &metrics{
		registerer: registerer,
		closes:     map[errcode.CloseCode]prometheus.Counter{},
		refusals:   map[conversationv1.ErrorCode]prometheus.Counter{},
		outcomes:   map[string]prometheus.Counter{},
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
	m.connections = gauge("connections", "Live connections.")
	m.rooms = gauge("rooms", "Conversations that somebody here listens to; each is a subscription.")
	m.drainLeft = gauge("drain_left", "Connections that are still to be closed, while the gateway is being stopped.")
	m.connects = counter("connects_total", "Connections taken.")
	m.revoked = counter("revoked_total", "Connections closed because their token was revoked.")
	m.framesIn = counter("frames_in_total", "Frames from clients.")
	m.framesOut = counter("frames_out_total", "Frames queued to clients.")
	m.bytesIn = counter("bytes_in_total", "Bytes of frames from clients.")
	m.bytesOut = counter("bytes_out_total", "Bytes written to clients.")
	m.writes = counter("writes_total", "Writes to sockets; one may carry many frames.")
	m.deliveries = counter("deliveries_total", "Events queued to connections.")
	m.retries = counter("retries_total", "Times that unacknowledged events were sent again.")
	m.repeats = counter("repeats_total", "Live events that were known already, and dropped.")
	m.gaps = counter("gaps_total", "Live messages that did not follow what was known.")
	m.gapEvents = counter("gap_events_total", "Events read from history to fill such gaps.")
	m.filled = counter("filled_total", "Events queued by fillers: resumed, repeated or late.")
	m.forks = counter("forks_total", "Clients told that their position is not on the log: the store was restored, or lost events.")
	m.reloads = counter("reloads_total", "Conversations read anew because the store has another log than the one that clients were sent.")
	m.holes = counter("holes_total", "Reads of history in which an event was missing; each is tried again.")
	m.earlyAcks = counter("ack_positions_skipped_total", "Positions of acknowledgements that name an event which does not exist.")
	closes := vector("closes_total", "Connections ended, by close code.", "code")
	for _, code := range closeCodes {
		m.closes[code] = closes.WithLabelValues(code.String())
	}
	m.closesOther = closes.WithLabelValues("other")
	refusals := vector("refusals_total", "Requests refused, by error code.", "reason")
	outcomes := vector("commands_total", "Commands answered, by outcome.", "outcome")
	for _, code := range errcode.Codes {
		m.refusals[code.Code] = refusals.WithLabelValues(code.Name)
		m.outcomes[code.Name] = outcomes.WithLabelValues(code.Name)
	}
	for _, name := range []string{outcomeCommitted, outcomeRepeated, outcomeUnknown} {
		m.outcomes[name] = outcomes.WithLabelValues(name)
	}
	resolve(m.limits[:], limitNames[:], vector("limit_refusals_total", "Times that somebody ran into a limit, by limit.", "limit"))
	resolve(m.rejects[:], rejectNames[:], vector("connects_refused_total", "Connections not taken or not let in, by reason.", "reason"))
	resolve(m.reads[:], readNames[:], vector("history_calls_total", "Calls of the history service, by what they are for.", "purpose"))
	latency := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: "runnel", Subsystem: "gateway", Name: "command_seconds",
		Help: "Time from a command's frame to each rung of the ladder. Of delivered it is the time from the event's own, which " +
			"is the broker's, to the first acknowledgement by somebody else's client, for events that reached one at once.",
		Buckets: latencyBuckets,
	}, []string{"rung"})
	registerer.MustRegister(latency)
	m.accepted, m.committed, m.delivered = latency.WithLabelValues("accepted"), latency.WithLabelValues("committed"), latency.WithLabelValues("delivered")
	return m
}

func resolve(counters []prometheus.Counter, names []string, vector *prometheus.CounterVec) {
	for i, name := range names {
		counters[i] = vector.WithLabelValues(name)
	}
}

// closeCodes are those that the gateway gives; what clients close with counts as other.
var closeCodes = []errcode.CloseCode{
	errcode.CloseGoingAway, errcode.CloseSlow, errcode.CloseNoAck, errcode.CloseNoPong, errcode.CloseDisconnected,
	errcode.CloseOverloaded, errcode.CloseTokenExpired, errcode.CloseInternal, errcode.CloseUnavailable, errcode.CloseProtocol,
	errcode.CloseUnauthenticated, errcode.CloseTooLarge, errcode.CloseFlood, errcode.CloseConnectTimeout, errcode.CloseStayAway,
}

// Outcomes that are no error codes.
const (
	outcomeCommitted = "committed"
	outcomeRepeated  = "repeated"
	outcomeUnknown   = "unknown" // errcode.Name of a code that this version does not know
)

// watch adds the figures that are read from the running gateway when somebody asks.
func (m *metrics) watch(g *Gateway) {
	gauge := func(name, help string, value func() float64) {
		m.registerer.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: "runnel", Subsystem: "gateway", Name: name, Help: help,
		}, value))
	}
	gauge("commands_pending", "Commands on their way.", func() float64 { return float64(g.submitter.Load().Pending()) })
	gauge("max_connections", "Connections that the gateway takes at most.", func() float64 { return float64(g.cfg.MaxConnections) })
	gauge("recent_bytes", "Size of recent events kept in memory.", func() float64 { return float64(g.hub.recentBytes.Load()) })
	gauge("explain_window_seconds", "How far back all steps of events are remembered.", func() float64 {
		return time.Since(g.recorder.Since()).Seconds()
	})
	gauge("level", "The installation's protocol level as this gateway knows it; 0 before the history service has answered.", func() float64 {
		return float64(g.level())
	})
	gauge("draining", "1 while the gateway is being stopped.", func() float64 {
		if g.isDraining() {
			return 1
		}
		return 0
	})
	m.registerer.MustRegister(newQueues(g))
}

// queues measures what waits, when somebody asks.
type queues struct {
	gw                *Gateway
	bytes, most, lane *prometheus.Desc
}

func newQueues(g *Gateway) *queues {
	return &queues{
		gw:    g,
		bytes: prometheus.NewDesc("runnel_gateway_send_queue_bytes", "Bytes waiting in the send queues of all connections.", nil, nil),
		most:  prometheus.NewDesc("runnel_gateway_send_queue_max_bytes", "Bytes waiting in the fullest send queue.", nil, nil),
		lane:  prometheus.NewDesc("runnel_gateway_lane_messages", "Live messages waiting to be handed out, by lane.", []string{"lane"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (q *queues) Describe(descs chan<- *prometheus.Desc) {
	descs <- q.bytes
	descs <- q.most
	descs <- q.lane
}

// Collect implements prometheus.Collector.
func (q *queues) Collect(metrics chan<- prometheus.Metric) {
	total, most := q.gw.queuedBytes()
	metrics <- prometheus.MustNewConstMetric(q.bytes, prometheus.GaugeValue, float64(total))
	metrics <- prometheus.MustNewConstMetric(q.most, prometheus.GaugeValue, float64(most))
	for i := range q.gw.hub.lanes {
		metrics <- prometheus.MustNewConstMetric(q.lane, prometheus.GaugeValue, float64(len(q.gw.hub.lanes[i].live)), strconv.Itoa(i))
	}
}

// refused counts an answer that is an error.
func (m *metrics) refused(code conversationv1.ErrorCode) {
	if counter := m.refusals[code]; counter != nil {
		counter.Inc()
	}
}

func (m *metrics) closed(code errcode.CloseCode) {
	if counter := m.closes[code]; counter != nil {
		counter.Inc()
		return
	}
	m.closesOther.Inc()
}

func (m *metrics) outcome(outcome *conversationv1.Outcome, took time.Duration) {
	switch {
	case outcome.GetError() != nil:
		m.outcomes[errcode.Name(outcome.GetError().GetCode())].Inc()
	case outcome.GetRepeated():
		m.outcomes[outcomeRepeated].Inc()
	default:
		m.outcomes[outcomeCommitted].Inc()
		m.committed.Observe(took.Seconds())
	}
}
