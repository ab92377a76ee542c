package delivery

import "github.com/runnelhq/runnel/pkg/statuspage"

// Charts returns the charts of a worker.
func Charts() []statuspage.Chart {
	return []statuspage.Chart{
		{Title: "Partitions owned here", Metric: "runnel_delivery_partitions_owned"},
		{Title: "Commands committed", Metric: "runnel_delivery_commands_total", Label: "outcome", Is: "committed", Kind: statuspage.Rate, Unit: "/s"},
		{Title: "Commands waiting", Metric: "runnel_delivery_lag_commands"},
		{Title: "Append, p99 at most", Metric: "runnel_delivery_append_seconds", Kind: statuspage.P99, Unit: "s"},
		{Title: "Appends", Metric: "runnel_delivery_append_seconds", Kind: statuspage.Rate, Unit: "/s"},
		{Title: "Repeats answered", Metric: "runnel_delivery_commands_total", Label: "outcome", Is: "repeated", Kind: statuspage.Rate, Unit: "/s"},
		{Title: "Receipts", Metric: "runnel_delivery_receipts_total", Kind: statuspage.Rate, Unit: "/s"},
		{Title: "Takeovers", Metric: "runnel_delivery_takeovers_total", Kind: statuspage.Rate, Unit: "/s"},
	}
}
