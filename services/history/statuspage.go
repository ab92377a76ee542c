package history

import "github.com/runnelhq/runnel/pkg/statuspage"

// Stages returns the stages of a message's path that the store measures.
func Stages() []statuspage.Stage {
	appends := statuspage.Series{Metric: "runnel_history_operation_seconds", Label: "operation", Is: "append"}
	return []statuspage.Stage{{
		Name: "Stored", Meaning: "its batch is committed in the database", Rate: appends, Latency: appends, LatencyFrom: "of one append",
		Backlog: statuspage.Series{Metric: "runnel_history_waiting"}, BacklogOf: "calls waiting",
	}}
}

// Charts are the charts of a history service's status page.
func Charts() []statuspage.Chart {
	return []statuspage.Chart{
		{Title: "Store calls refused or failed", Metric: "runnel_history_refused_total", Kind: statuspage.Rate, Unit: "/s"},
		{Title: "Appends to the store", Metric: "runnel_history_append_events", Kind: statuspage.Rate, Unit: "/s", Detail: true},
		{Title: "Append in the store, p99 at most", Metric: "runnel_history_operation_seconds", Label: "operation", Is: "append", Kind: statuspage.P99, Unit: "s", Detail: true},
		{Title: "Reads of the log", Metric: "runnel_history_operation_seconds", Label: "operation", Is: "read", Kind: statuspage.Rate, Unit: "/s", Detail: true},
		{Title: "Read of the log, p99 at most", Metric: "runnel_history_operation_seconds", Label: "operation", Is: "read", Kind: statuspage.P99, Unit: "s", Detail: true},
		{Title: "Repeats found by the store", Metric: "runnel_history_duplicates_total", Kind: statuspage.Rate, Unit: "/s", Detail: true},
		{Title: "Calls waiting for the database", Metric: "runnel_history_waiting", Detail: true},
	}
}
