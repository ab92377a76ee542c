package bench

// row describes one figure of one scenario, with its target and the figures of peers. A target of 0 means that there is
// none. Smaller values are better, unless more is set.
type row struct {
	scenario int
	key      string // the key passed to trial.record
	metric   string
	what     string
	unit     string
	// the peers' figures and the target, as they are printed
	memory, durable, tinode, target string
	standalone, separate            float64
	more                            bool
}

// The peers were measured on a comparable machine: Centrifugo 6.9 with its memory engine (not durable), with Redis
// syncing before each reply (first figure) and with PostgreSQL (second figure); and Tinode on PostgreSQL.
var rows = []row{
	{1, "groups", "p50", "500 groups of 4, 1,000 messages/s: sender → receiver p50", "ms", "0.14", "0.46 · 14", "1.06", "≤ 1 standalone, ≤ 3 separate", 1, 3, false},
	{1, "groups", "p99", "the same, p99", "ms", "0.33", "2.0 · 46", "14.8", "≤ 5 standalone, ≤ 12 separate", 5, 12, false},
	{1, "groups", "cpu", "the same, CPU per message", "µs", "156", "325 · 1,724", "868", "≤ 300 standalone, ≤ 500 separate", 300, 500, false},
	{2, "closed", "rate", "the same groups, 2,000 senders in a closed loop", "messages/s", "23,200", "15,500 · 2,600", "2,050", "≥ 16,000 standalone, ≥ 8,000 separate", 16_000, 8_000, true},
	{2, "closed", "cpu", "the same, CPU per message", "µs", "54", "82 · 534", "634", "≤ 90 standalone", 90, 0, false},
	{2, "closed", "ack p50", "the same, committed ack p50", "ms", "", "", "", "", 0, 0, false},
	{2, "closed", "ack p99", "the same, committed ack p99", "ms", "", "", "", "", 0, 0, false},
	{2, "closed, no receipts", "rate", "the same without receipts", "messages/s", "", "", "", "", 0, 0, true},
	{2, "closed, no receipts", "cpu", "the same, CPU per message", "µs", "", "", "", "", 0, 0, false},
	{3, "acks 100", "p50", "committed ack at 100 messages/s p50", "ms", "", "", "", "", 0, 0, false},
	{3, "acks 100", "p99", "the same, p99", "ms", "", "", "", "", 0, 0, false},
	{3, "acks 1000", "p50", "committed ack at 1,000 messages/s p50", "ms", "", "", "", "", 0, 0, false},
	{3, "acks 1000", "p99", "the same, p99", "ms", "", "", "", "", 0, 0, false},
	{3, "acks 2000", "p50", "committed ack at 2,000 messages/s p50", "ms", "", "", "", "≤ 5", 5, 5, false},
	{3, "acks 2000", "p99", "the same, p99", "ms", "", "", "", "≤ 30", 30, 30, false},
	{4, "flood", "rate", "1 → 1,000 connections flat out", "deliveries/s", "704,000", "(everysec) 375,000 · 285,000", "88,000", "≥ 700,000", 700_000, 700_000, true},
	{4, "flood", "cpu", "the same, CPU per delivery", "µs", "1.8", "3.0 · 4.5", "14", "≤ 1.8", 1.8, 1.8, false},
	{5, "room", "p50", "1 → 1,000 connections at 20 events/s: p50", "ms", "7.3", "8.1 · 65", "11", "≤ 6", 6, 6, false},
	{5, "room", "p99", "the same, p99", "ms", "12", "13 · 129", "28", "≤ 10", 10, 10, false},
	{5, "room", "cpu", "the same, CPU per delivery", "µs", "11.5", "12.6 · 14.8", "23", "≤ 8", 8, 8, false},
	{5, "room, no receipts", "p50", "the same without receipts: p50", "ms", "", "", "", "", 0, 0, false},
	{5, "room, no receipts", "p99", "the same, p99", "ms", "", "", "", "", 0, 0, false},
	{5, "room, no receipts", "cpu", "the same, CPU per delivery", "µs", "", "", "", "", 0, 0, false},
	{6, "idle", "memory", "10,000 idle connections, each in one group of 10: RSS per connection", "KiB", "37–44", "", "34", "≤ 12", 12, 12, false},
	{6, "idle", "cpu", "the same, CPU per connect and join", "µs", "186", "", "565", "≤ 150", 150, 150, false},
	{7, "return", "time", "1,000 clients back at once, each missing 100 messages: all whole, in order", "ms", "446", "774 · 674", "811, newest first", "≤ 300", 300, 300, false},
	{8, "long", "time", "one client, 10,000 missed events", "ms", "refused (300 at most)", "", "100 a page", "≤ 1,000", 1000, 1000, false},
	{9, "worker killed", "time", "delivery worker killed: longest wait of a send", "ms", "", "", "", "≤ 3,000", 0, 3000, false},
	{9, "worker stopped", "time", "delivery worker stopped cleanly: longest wait of a send", "ms", "", "", "", "≤ 300", 0, 300, false},
	{9, "gateway killed", "p50", "gateway killed: its clients live elsewhere, median", "ms", "", "", "", "≤ 2,000", 0, 2000, false},
	{9, "gateway killed", "last", "the same, the last of them", "ms", "", "", "", "", 0, 0, false},
}

// targetFor returns the row's target in a mode; 0 if there is none.
func (r row) targetFor(mode string) float64 {
	if mode == standalone {
		return r.standalone
	}
	return r.separate
}

// met reports whether a value meets a target.
func (r row) met(value, target float64) bool {
	if r.more {
		return value >= target
	}
	return value <= target
}
