package statuspage

// GatewayCharts are the curves of a gateway.
func GatewayCharts() []Chart {
	return []Chart{
		{Title: "Connections", Metric: "runnel_gateway_connections"},
		{Title: "Commands answered", Metric: "runnel_gateway_commands_total", Kind: Rate, Unit: "/s"},
		{Title: "Deliveries", Metric: "runnel_gateway_deliveries_total", Kind: Rate, Unit: "/s"},
		{Title: "Accepted, p99 at most", Metric: "runnel_gateway_command_seconds", Label: "rung", Is: "accepted", Kind: P99, Unit: "s"},
		{Title: "Committed, p99 at most", Metric: "runnel_gateway_command_seconds", Label: "rung", Is: "committed", Kind: P99, Unit: "s"},
		{Title: "Delivered, p99 at most", Metric: "runnel_gateway_command_seconds", Label: "rung", Is: "delivered", Kind: P99, Unit: "s"},
		{Title: "Bytes to clients", Metric: "runnel_gateway_bytes_out_total", Kind: Rate, Unit: "B/s"},
		{Title: "Waiting in send queues", Metric: "runnel_gateway_send_queue_bytes", Unit: "B"},
		{Title: "Connects", Metric: "runnel_gateway_connects_total", Kind: Rate, Unit: "/s"},
		{Title: "Sent again", Metric: "runnel_gateway_retries_total", Kind: Rate, Unit: "/s"},
		{Title: "Gaps found", Metric: "runnel_gateway_gaps_total", Kind: Rate, Unit: "/s"},
		{Title: "Requests refused", Metric: "runnel_gateway_refusals_total", Kind: Rate, Unit: "/s"},
	}
}

// DeliveryCharts are the curves of a delivery worker.
func DeliveryCharts() []Chart {
	return []Chart{
		{Title: "Partitions owned here", Metric: "runnel_delivery_partitions_owned"},
		{Title: "Commands committed", Metric: "runnel_delivery_commands_total", Label: "outcome", Is: "committed", Kind: Rate, Unit: "/s"},
		{Title: "Commands waiting", Metric: "runnel_delivery_lag_commands"},
		{Title: "Append, p99 at most", Metric: "runnel_delivery_append_seconds", Kind: P99, Unit: "s"},
		{Title: "Appends", Metric: "runnel_delivery_append_seconds", Kind: Rate, Unit: "/s"},
		{Title: "Repeats answered", Metric: "runnel_delivery_commands_total", Label: "outcome", Is: "repeated", Kind: Rate, Unit: "/s"},
		{Title: "Receipts", Metric: "runnel_delivery_receipts_total", Kind: Rate, Unit: "/s"},
		{Title: "Takeovers", Metric: "runnel_delivery_takeovers_total", Kind: Rate, Unit: "/s"},
	}
}

// HistoryCharts are the curves of a history service.
func HistoryCharts() []Chart {
	return []Chart{
		{Title: "Appends", Metric: "runnel_history_append_events", Kind: Rate, Unit: "/s"},
		{Title: "Append, p99 at most", Metric: "runnel_history_operation_seconds", Label: "operation", Is: "append", Kind: P99, Unit: "s"},
		{Title: "Reads", Metric: "runnel_history_operation_seconds", Label: "operation", Is: "read", Kind: Rate, Unit: "/s"},
		{Title: "Read, p99 at most", Metric: "runnel_history_operation_seconds", Label: "operation", Is: "read", Kind: P99, Unit: "s"},
		{Title: "Calls refused or failed", Metric: "runnel_history_refused_total", Kind: Rate, Unit: "/s"},
		{Title: "Repeats found", Metric: "runnel_history_duplicates_total", Kind: Rate, Unit: "/s"},
	}
}
