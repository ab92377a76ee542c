package history

import "github.com/runnelhq/runnel/pkg/statuspage"

// Charts are the charts of a history service's status page.
func Charts() []statuspage.Chart {
	return []statuspage.Chart{
		{Title: "Appends", Metric: "runnel_history_append_events", Kind: statuspage.Rate, Unit: "/s"},
		{Title: "Append, p99 at most", Metric: "runnel_history_operation_seconds", Label: "operation", Is: "append", Kind: statuspage.P99, Unit: "s"},
		{Title: "Reads", Metric: "runnel_history_operation_seconds", Label: "operation", Is: "read", Kind: statuspage.Rate, Unit: "/s"},
		{Title: "Read, p99 at most", Metric: "runnel_history_operation_seconds", Label: "operation", Is: "read", Kind: statuspage.P99, Unit: "s"},
		{Title: "Calls refused or failed", Metric: "runnel_history_refused_total", Kind: statuspage.Rate, Unit: "/s"},
		{Title: "Repeats found", Metric: "runnel_history_duplicates_total", Kind: statuspage.Rate, Unit: "/s"},
	}
}
