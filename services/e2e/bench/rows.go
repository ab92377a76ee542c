package bench

import "fmt"

// row describes one figure of one scenario, with its targets and the figures of other products. Smaller values are
// better, unless more is set.
type row struct {
	scenario int
	key      string // the key passed to trial.record
	metric   string
	what     string
	unit     string
	// peers are the printed figures of the other products.
	peers peers
	// standalone and separate are the targets; 0 means that the row has no target.
	standalone, separate float64
	more                 bool
}

// peers are the figures of three products. memory is Centrifugo 6.9.1 with its memory engine, which stores nothing.
// durable is Centrifugo with Redis 7.0 that syncs before each reply. The third is Tinode on PostgreSQL 15. All were
// measured on this machine on 2026-11-28, with messages of the same size.
type peers struct{ memory, durable, tinode string }

var none peers

var rows = []row{
	{1, "groups", "p50", "500 groups of 4, 1,000 messages/s: sender → receiver p50", "ms", peers{"0.15", "0.44", "1.05"}, 0.7, 1.5, false},
	{1, "groups", "p99", "the same, p99", "ms", peers{"0.42", "1.7", "6.9"}, 2.5, 6, false},
	{1, "groups", "cpu", "the same, CPU per message", "µs", peers{"149", "360", "816"}, 300, 600, false},
	{2, "closed", "rate", "the same groups, 2,000 senders in a closed loop", "messages/s", peers{"18,000", "15,000", "1,840"}, 18_000, 15_000, true},
	{2, "closed", "cpu", "the same, CPU per message", "µs", peers{"57", "83", "723"}, 65, 95, false},
	{2, "closed", "ack p50", "the same, committed ack p50", "ms", none, 0, 0, false},
	{2, "closed", "ack p99", "the same, committed ack p99", "ms", none, 0, 0, false},
	{2, "closed, no receipts", "rate", "the same without receipts", "messages/s", none, 0, 0, true},
	{2, "closed, no receipts", "cpu", "the same, CPU per message", "µs", none, 0, 0, false},
	{3, "acks 100", "p50", "committed ack at 100 messages/s p50", "ms", none, 0, 0, false},
	{3, "acks 100", "p99", "the same, p99", "ms", none, 0, 0, false},
	{3, "acks 1000", "p50", "committed ack at 1,000 messages/s p50", "ms", none, 0, 0, false},
	{3, "acks 1000", "p99", "the same, p99", "ms", none, 0, 0, false},
	{3, "acks 2000", "p50", "committed ack at 2,000 messages/s p50", "ms", none, 2, 5, false},
	{3, "acks 2000", "p99", "the same, p99", "ms", none, 10, 30, false},
	{4, "flood", "rate", "1 → 1,000 connections, 256 messages in flight", "deliveries/s", none, 0, 0, true},
	{4, "flood", "cpu", "the same, CPU per delivery", "µs", none, 0, 0, false},
	{5, "room", "p50", "1 → 1,000 connections at 20 events/s: p50", "ms", peers{"7.3", "8.1", "10"}, 6.5, 7.5, false},
	{5, "room", "p99", "the same, p99", "ms", peers{"12.8", "12.6", "21"}, 11, 12, false},
	{5, "room", "cpu", "the same, CPU per delivery", "µs", peers{"11.3", "12.6", "17.6"}, 9, 11, false},
	{5, "room, no receipts", "p50", "the same without receipts: p50", "ms", none, 0, 0, false},
	{5, "room, no receipts", "p99", "the same, p99", "ms", none, 0, 0, false},
	{5, "room, no receipts", "cpu", "the same, CPU per delivery", "µs", none, 0, 0, false},
	{6, "idle", "memory", "10,000 idle connections, each in one group of 10: RSS per connection", "KiB", peers{"47.5", "", "37.7"}, 10, 10, false},
	{6, "idle", "cpu", "the same, CPU per connect and join", "µs", peers{"138", "", "431"}, 110, 200, false},
	{7, "return", "time", "1,000 clients back at once, each missing 100 messages: all whole, in order", "ms", peers{"306", "", "1,457, newest first"}, 220, 280, false},
	{8, "long", "time", "one client, 10,000 missed events", "ms", peers{"48 with limits raised", "", "100 a page"}, 100, 120, false},
	{9, "worker killed", "time", "delivery worker killed: longest wait of a send", "ms", none, 0, 2000, false},
	{9, "worker stopped", "time", "delivery worker stopped cleanly: longest wait of a send", "ms", none, 0, 100, false},
	{9, "gateway killed", "p50", "gateway killed: its clients live elsewhere, median", "ms", none, 0, 0, false},
	{9, "gateway killed", "last", "the same, the last of them", "ms", none, 0, 0, false},
	{10, "groups fast", "p50", "500 groups of 4, 4,000 messages/s: sender → receiver p50", "ms", peers{tinode: "2,000/s at most"}, 0, 0, false},
	{10, "groups fast", "p99", "the same, p99", "ms", none, 15, 0, false},
	{10, "groups fast", "cpu", "the same, CPU per message", "µs", none, 150, 0, false},
	{11, "window", "rate", "1 → 1,000 connections, 16 messages in flight", "deliveries/s", peers{"772,000", "", "63,000"}, 900_000, 750_000, true},
	{11, "window", "cpu", "the same, CPU per delivery", "µs", peers{"1.37", "", "16.6"}, 1.1, 1.5, false},
	{12, "idle groups", "memory made", "20,000 groups of 4 made while their 2,000 members are connected: RSS above none", "MiB", none, 60, 60, false},
	{12, "idle groups", "memory", "the same groups idle, services started anew: RSS above none", "MiB", none, 60, 60, false},
	{12, "idle groups", "memory after one", "the same, after one message in each", "MiB", none, 120, 120, false},
	{13, "burst", "lag", "15,000 groups created at once: all members have them, after the last commit", "ms", none, 1000, 1000, false},
	{13, "burst", "time", "the same, after the first request", "ms", none, 0, 0, false},
	{14, "restart", "time", "standalone killed and restarted: until the next commit", "ms", none, 500, 0, false},
	{15, "growth", "some", "RSS above that of the connections, after 5,000 messages", "MiB", none, 0, 0, false},
	{15, "growth", "many", "the same, after 100,000 messages", "MiB", none, 0, 0, false},
	{16, "parts", "gateway cpu", "500 groups of 4, 4,000 messages/s: CPU of the gateway per message", "µs", none, 0, 0, false},
	{16, "parts", "nats cpu", "the same, NATS", "µs", none, 0, 0, false},
	{16, "parts", "delivery cpu", "the same, delivery", "µs", none, 0, 0, false},
	{16, "parts", "history cpu", "the same, history", "µs", none, 0, 0, false},
	{16, "parts", "postgres cpu", "the same, PostgreSQL", "µs", none, 0, 0, false},
	{16, "parts", "client bytes", "the same, bytes to clients per message", "bytes", none, 0, 0, false},
	{16, "parts", "stream bytes", "the same, bytes in the stream per message", "bytes", none, 0, 0, false},
	{16, "parts", "store bytes", "the same, bytes in the database per message, without its write-ahead log", "bytes", none, 0, 0, false},
}

// targetFor returns the row's target in a mode; 0 if there is none.
func (r row) targetFor(mode string) float64 {
	if mode == standalone {
		return r.standalone
	}
	return r.separate
}

// target prints the targets.
func (r row) target() string {
	sign := "≤ "
	if r.more {
		sign = "≥ "
	}
	switch {
	case r.standalone == 0 && r.separate == 0:
		return "none"
	case r.standalone == r.separate:
		return sign + number(r.standalone)
	case r.separate == 0:
		return sign + number(r.standalone) + " standalone"
	case r.standalone == 0:
		return sign + number(r.separate) + " separate"
	}
	return fmt.Sprintf("%s%s standalone, %s%s separate", sign, number(r.standalone), sign, number(r.separate))
}

// met reports whether a value meets a target.
func (r row) met(value, target float64) bool {
	if r.more {
		return value >= target
	}
	return value <= target
}
