package sizing

// Estimates are values that the benchmark does not measure. They are on the careful side.
const (
	// measuredMembers is the size of the groups in which the figures were measured.
	measuredMembers = 4
	// gatewayConnections is the most connections that a gateway accepts by default.
	gatewayConnections = 100_000
	// heartbeatMicros is the CPU of a heartbeat and its answer: one write, one read.
	heartbeatMicros = 15
	// heartbeatSeconds is the default interval of heartbeats.
	heartbeatSeconds = 25
	// subscriptionBytes is the memory of one subscription in each server of a NATS cluster: a subject that a gateway listens to.
	subscriptionBytes = 400
	// eventBytes is a live event on the way from delivery to a gateway; outcomes and acknowledgements are in it.
	eventBytes = 900
	// journalFactor is how many bytes PostgreSQL writes to disk for a byte that it stores: the write-ahead log, whole pages in it
	// after a checkpoint, and the page itself.
	journalFactor = 3
	// gatewayBase, natsBase, deliveryBase, historyBase and databaseBase are the memory of a process with nothing to do, in bytes.
	gatewayBase, natsBase, deliveryBase, historyBase, databaseBase = 64 << 20, 64 << 20, 48 << 20, 48 << 20, 1 << 30
	// roomShare is the share of a conversation's memory that a gateway needs for one of its members. If all members are on different
	// gateways, each of the gateways has a room.
	roomShare = 0.5
	// cachedShare is the share of conversations that a day's messages keep in the memory of delivery workers.
	cachedShare = 0.1
	// hotShare is the share of a day's events that PostgreSQL should hold in memory: the newest pages, and the indexes that are being
	// written.
	hotShare = 0.1
)
