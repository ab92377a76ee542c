package history

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/runnelhq/runnel/services/history/store"
)

// metrics are the metrics of the service. All series are looked up when it is made.
type metrics struct {
	appendEvents                 prometheus.Observer
	duplicates, rewinds, damaged prometheus.Counter
	deadLetters, refusals        prometheus.Counter

	append, watermark, lease, conversations, commands, read,
	listConversations, listMembers, findMemberships, countMemberships, compareMemberships, heads, saveCursors,
	listLeases, movePartition, listDeadLetters, getDeadLetter, dropDeadLetter, revokeUser, getRevocations,
	facts, readMessages, listRefusals, readFeed, getFeedCursors, saveFeedCursor, getInstallation, raiseLevel, markBackup *operation
}

// forCommands reports whether workers call the method to carry out commands. If the database never accepts such a call, a
// command must become a dead letter. Callers of all other methods only read, or try again later.
func (o *operation) forCommands() bool {
	return slices.Contains([]string{"append", "conversations", "commands", "facts"}, o.name)
}

// operation holds the metrics of one method.
type operation struct {
	name    string
	seconds prometheus.Observer
	refused map[reason]prometheus.Counter
	// logged limits the log lines during an outage, so that not every call writes a line.
	logged rate.Sometimes
}

// reason is the metric label for the reason why a call was not answered.
type reason string

const (
	reasonInvalid     reason = "invalid"
	reasonForbidden   reason = "forbidden"
	reasonWatermark   reason = "watermark"
	reasonSeqTaken    reason = "seq_taken"
	reasonPosition    reason = "position"
	reasonFork        reason = "fork"
	reasonLevel       reason = "level"
	reasonNotFound    reason = "not_found"
	reasonTooLarge    reason = "too_large"
	reasonGivenUp     reason = "given_up"
	reasonUnavailable reason = "unavailable"
	reasonDefect      reason = "defect"
	reasonGap         reason = "gap"
)

func newMetrics(registerer prometheus.Registerer, s store.Store) *metrics {
	backend := s.Stats().Backend
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "runnel_history_operation_seconds", Help: "Time the store took, by database and operation; append is the commit that a sender waits for.",
		Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
	}, []string{"backend", "operation"})
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "runnel_history_refused_total", Help: "Calls that were not answered, by operation and reason; watermark means that another worker owns the partition now.",
	}, []string{"operation", "reason"})
	events := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "runnel_history_append_events", Help: "Events in an append that was committed.", Buckets: []float64{0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512},
	})
	duplicates := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "runnel_history_duplicates_total", Help: "Commands that had been committed before and were answered with their first outcome.",
	})
	rewinds := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "runnel_history_watermark_rewinds_total", Help: "Appends that moved a watermark back in its stream. Right only after the broker lost acknowledged commands.",
	})
	damaged := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "runnel_history_damaged_events_total", Help: "Events that were read and whose stored body does not have their kind, or is missing without having been erased. Above 0 is an alarm: run runnel verify.",
	})
	deadLetters := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "runnel_history_dead_letters_total", Help: "Commands that became dead letters. Each is a command that was sent and never committed: see runnel admin dead-letters.",
	})
	refusals := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "runnel_history_refusals_total", Help: "Refusals of commands that were stored, so that no later copy of the command is committed.",
	})
	registerer.MustRegister(seconds, refused, events, duplicates, rewinds, damaged, deadLetters, refusals, newStatsCollector(s))

	resolve := func(name string) *operation {
		o := &operation{
			name: name, seconds: seconds.WithLabelValues(backend, name), refused: map[reason]prometheus.Counter{},
			logged: rate.Sometimes{First: 1, Interval: time.Second},
		}
		for _, r := range []reason{
			reasonInvalid, reasonForbidden, reasonWatermark, reasonSeqTaken, reasonPosition, reasonFork, reasonLevel, reasonNotFound, reasonTooLarge, reasonGivenUp, reasonUnavailable, reasonDefect, reasonGap,
		} {
			o.refused[r] = refused.WithLabelValues(name, string(r))
		}
		return o
	}
	return &metrics{
		appendEvents: events, duplicates: duplicates, rewinds: rewinds, damaged: damaged, deadLetters: deadLetters, refusals: refusals,
		append: resolve("append"), watermark: resolve("watermark"), lease: resolve("lease"), conversations: resolve("conversations"),
		commands: resolve("commands"), read: resolve("read"), listConversations: resolve("list_conversations"),
		listMembers: resolve("list_members"), findMemberships: resolve("find_memberships"), countMemberships: resolve("count_memberships"), compareMemberships: resolve("compare_memberships"), heads: resolve("heads"), saveCursors: resolve("save_cursors"),
		listLeases: resolve("list_leases"), movePartition: resolve("move_partition"), listDeadLetters: resolve("list_dead_letters"),
		getDeadLetter: resolve("get_dead_letter"), dropDeadLetter: resolve("drop_dead_letter"), revokeUser: resolve("revoke_user"),
		getRevocations: resolve("get_revocations"), facts: resolve("facts"), readMessages: resolve("read_messages"),
		listRefusals: resolve("list_refusals"), readFeed: resolve("read_feed"), getFeedCursors: resolve("get_feed_cursors"),
		saveFeedCursor: resolve("save_feed_cursor"), getInstallation: resolve("get_installation"), raiseLevel: resolve("raise_level"),
		markBackup: resolve("mark_backup"),
	}
}

// statsCollector reads the statistics of the store at every scrape.
type statsCollector struct {
	store store.Store

	connections, limit, waiting, givenUp               *prometheus.Desc
	databaseBytes, logBytes, commits, copies, uncopied *prometheus.Desc
}

func newStatsCollector(s store.Store) *statsCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("runnel_history_"+name, help, labels, nil)
	}
	return &statsCollector{
		store:       s,
		connections: desc("connections", "Open connections to the database, busy or idle. With SQLite, only the connections for reading.", "state"),
		limit:       desc("connections_limit", "Maximum number of connections."),
		waiting:     desc("waiting", "Calls that wait for a connection to PostgreSQL, or to share a transaction with others."),
		givenUp:     desc("connection_timeouts_total", "Calls that got no connection to PostgreSQL in time and were refused as unavailable."),

		databaseBytes: desc("sqlite_database_bytes", "Size of the SQLite file."),
		logBytes:      desc("sqlite_log_bytes", "Size of the SQLite file's write-ahead log. It restarts at about 32 MiB; if it keeps growing, it is not being copied into the file."),
		commits:       desc("commits_total", "Transactions of appends that were committed; appends that arrive together share one. With SQLite, transactions of all writes."),
		copies:        desc("sqlite_checkpoints_total", "Times that the write-ahead log was copied into the SQLite file."),
		uncopied:      desc("sqlite_checkpoint_failures_total", "Times that the write-ahead log could not be copied into the SQLite file."),
	}
}

// Describe lists all possible metrics; each database reports only the metrics that it has.
func (c *statsCollector) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{
		c.connections, c.limit, c.waiting, c.givenUp, c.databaseBytes, c.logBytes, c.commits, c.copies, c.uncopied,
	} {
		descs <- desc
	}
}

// Collect reads the statistics and reports them.
func (c *statsCollector) Collect(metrics chan<- prometheus.Metric) {
	stats := c.store.Stats()
	gauge := func(desc *prometheus.Desc, value int64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(value), labels...)
	}
	counter := func(desc *prometheus.Desc, value uint64) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(value))
	}
	gauge(c.connections, int64(stats.Busy), "busy")
	gauge(c.connections, int64(stats.Open-stats.Busy), "idle")
	gauge(c.limit, int64(stats.MaxConnections))
	gauge(c.waiting, int64(stats.Waiting))
	counter(c.commits, stats.Commits)
	if stats.Backend != "sqlite" {
		counter(c.givenUp, stats.GivenUp)
		return
	}
	gauge(c.databaseBytes, stats.File.DatabaseBytes)
	gauge(c.logBytes, stats.File.LogBytes)
	counter(c.copies, stats.File.Copies)
	counter(c.uncopied, stats.File.FailedCopies)
}
