package delivery

import "github.com/runnelhq/runnel/pkg/statuspage"

// Stages returns the stages of a message's path that a worker measures.
func Stages() []statuspage.Stage {
	return []statuspage.Stage{{
		Name: "Committed", Meaning: "stored, with its place in the log",
		Rate:    statuspage.Series{Metric: "runnel_delivery_commands_total", Label: "outcome", Is: "committed"},
		Latency: statuspage.Series{Metric: "runnel_delivery_accepted_to_committed_seconds"}, LatencyFrom: "from the broker's acceptance",
		Backlog: statuspage.Series{Metric: "runnel_delivery_lag_commands"}, BacklogOf: "waiting",
	}}
}

// Charts are the charts of a worker's status page.
func Charts() []statuspage.Chart {
	return []statuspage.Chart{
		{Title: "Commands waiting", Metric: "runnel_delivery_lag_commands"},
		{Title: "Partitions owned here", Metric: "runnel_delivery_partitions_owned", Detail: true},
		{Title: "Commands committed here", Metric: "runnel_delivery_commands_total", Label: "outcome", Is: "committed", Kind: statuspage.Rate, Unit: "/s", Detail: true},
		{Title: "Repeats answered", Metric: "runnel_delivery_commands_total", Label: "outcome", Is: "repeated", Kind: statuspage.Rate, Unit: "/s", Detail: true},
		{Title: "Batches appended", Metric: "runnel_delivery_append_seconds", Kind: statuspage.Rate, Unit: "/s", Detail: true},
		{Title: "Append as the worker sees it, p99 at most", Metric: "runnel_delivery_append_seconds", Kind: statuspage.P99, Unit: "s", Detail: true},
		{Title: "Receipts", Metric: "runnel_delivery_receipts_total", Kind: statuspage.Rate, Unit: "/s", Detail: true},
		{Title: "Takeovers", Metric: "runnel_delivery_takeovers_total", Kind: statuspage.Rate, Unit: "/s", Detail: true},
	}
}
