package sizing

import (
	"cmp"
	"errors"
	"math"
	"slices"
)

// Load is what an installation is to carry. All fields must be positive.
type Load struct {
	Connections   float64 `json:"connections"`
	Messages      float64 `json:"messages_per_second"`
	Conversations float64 `json:"conversations"`
	// Members is the size of a conversation. All members are connected, on different gateways: the worst case.
	Members float64 `json:"members"`
	// Days is how long events are kept.
	Days float64 `json:"days"`
	// StreamHours is how long the streams keep commands that are committed: until the next backup.
	StreamHours float64 `json:"stream_hours"`
	// Minutes is how long a connection lasts.
	Minutes float64 `json:"minutes_per_connection"`
}

// Machines are the machines that it runs on, all alike, and how it is divided. All fields must be positive.
type Machines struct {
	Cores       float64 `json:"cores"`
	MemoryGiB   float64 `json:"memory_gib"`
	DiskGiB     float64 `json:"disk_gib"`
	NetworkMBs  float64 `json:"network_mb_per_second"` // in each direction
	DiskMBs     float64 `json:"disk_mb_per_second"`    // written
	Utilization float64 `json:"utilization"`           // the share of processors, disks' speed and network that may be used on average

	Partitions   float64 `json:"partitions"`
	Replicas     float64 `json:"replicas"` // copies of a stream, and servers of a NATS cluster
	NATSClusters float64 `json:"nats_clusters"`
	Databases    float64 `json:"databases"` // PostgreSQL servers, each with an equal part of the partitions
}

// Errors of Compute.
var (
	ErrNotPositive = errors.New("all values must be above 0")
	ErrUtilization = errors.New("utilization must be at most 1")
	ErrPartitions  = errors.New("there cannot be more NATS clusters or databases than partitions: a partition is in one of each")
)

// Cause is what some of a part's processors are for.
type Cause struct {
	What  string  `json:"what"`
	Cores float64 `json:"cores"`
}

// Part is what one part needs, over all its machines. Cores are those that are busy on average.
type Part struct {
	Name      string  `json:"name"`
	Cores     float64 `json:"cores"`
	Causes    []Cause `json:"causes"`
	MemoryGiB float64 `json:"memory_gib"`
	DiskGiB   float64 `json:"disk_gib"`
	// NetworkMBs is sent, DiskMBs written, in MB/s.
	NetworkMBs float64 `json:"network_mb_per_second"`
	DiskMBs    float64 `json:"disk_mb_per_second"`
	// Machines is the number of machines on which the part fits.
	Machines float64 `json:"machines"`
}

// Limit is something that cannot be enlarged by starting another process.
type Limit struct {
	What string `json:"what"`
	// Use is the share of the limit that the load takes. Above 1 it is exceeded.
	Use float64 `json:"use"`
	// Remedy is what moves the limit.
	Remedy string `json:"remedy"`

	divides divides
}

// divides is which number of Machines moves a limit.
type divides uint8

const (
	databases divides = iota
	clusters
	partitions
)

// Plan is what an installation needs.
type Plan struct {
	Load     Load     `json:"load"`
	Machines Machines `json:"machines"`
	Parts    []Part   `json:"parts"`
	// Limits are sorted: the first one breaks first.
	Limits []Limit `json:"limits"`
}

// Fits reports whether no limit is exceeded.
func (p *Plan) Fits() bool { return p.Limits[0].Use <= 1 }

// Total is the sum of all parts.
func (p *Plan) Total() Part {
	total := Part{Name: "all"}
	for _, part := range p.Parts {
		total.Cores += part.Cores
		total.MemoryGiB += part.MemoryGiB
		total.DiskGiB += part.DiskGiB
		total.NetworkMBs += part.NetworkMBs
		total.DiskMBs += part.DiskMBs
		total.Machines += part.Machines
	}
	return total
}

const (
	gib    = 1 << 30
	mb     = 1e6
	day    = 86400
	hour   = 3600
	micros = 1e6
)

// Compute makes the plan of a load on machines.
func Compute(f Figures, load Load, m Machines) (*Plan, error) {
	for _, v := range []float64{
		load.Connections, load.Messages, load.Conversations, load.Members, load.Days, load.StreamHours, load.Minutes,
		m.Cores, m.MemoryGiB, m.DiskGiB, m.NetworkMBs, m.DiskMBs, m.Utilization, m.Partitions, m.Replicas, m.NATSClusters, m.Databases,
	} {
		if !(v > 0) || math.IsInf(v, 0) {
			return nil, ErrNotPositive
		}
	}
	switch {
	case m.Utilization > 1:
		return nil, ErrUtilization
	case max(m.NATSClusters, m.Databases) > m.Partitions:
		return nil, ErrPartitions
	}
	p := &Plan{Load: load, Machines: m}
	gateways := p.gateways(f)
	hops := min(load.Members, gateways.Machines) // gateways that a message goes to
	nats, subscriptions := p.nats(f, hops)
	p.Parts = []Part{gateways, nats, p.delivery(f), p.history(f), p.database(f)}
	p.limit(f, nats, p.Parts[4], subscriptions)
	return p, nil
}

// spread completes a part whose machines can be any number, at least least.
func (p *Plan) spread(part Part, least float64) Part {
	for _, cause := range part.Causes {
		part.Cores += cause.Cores
	}
	m := p.Machines
	part.Machines = math.Ceil(max(
		least, part.Cores/(m.Cores*m.Utilization), part.MemoryGiB/m.MemoryGiB, part.DiskGiB/m.DiskGiB,
		part.NetworkMBs/(m.NetworkMBs*m.Utilization), part.DiskMBs/(m.DiskMBs*m.Utilization),
	))
	return part
}

// extra is the number of deliveries of a message beyond those that the figures contain.
func (l Load) extra() float64 { return max(0, l.Members-measuredMembers) }

func (p *Plan) gateways(f Figures) Part {
	l := p.Load
	perMember := f.ClientBytes / measuredMembers
	return p.spread(Part{
		Name: "gateway",
		Causes: []Cause{
			{"messages", l.Messages * f.Gateway / micros},
			{"more members than 4", l.Messages * l.extra() * f.EachDelivery / micros},
			{"connecting", l.Connections / (l.Minutes * 60) * f.Connect / micros},
			{"heartbeats", l.Connections / heartbeatSeconds * heartbeatMicros / micros},
		},
		// A conversation whose members are on different gateways is a room on each.
		MemoryGiB:  (gatewayBase + l.Connections*f.ConnectionBytes + l.Conversations*l.Members*f.ConversationBytes*roomShare) / gib,
		NetworkMBs: l.Messages * (max(measuredMembers, l.Members)*perMember + f.StreamBytes) / mb,
	}, 1+math.Ceil(l.Connections/gatewayConnections)) // one more, so that the clients of one that fails find room
}

// nats also returns the number of subjects that the gateways listen to, each counted once for each gateway.
func (p *Plan) nats(f Figures, hops float64) (part Part, subscriptions float64) {
	l, m := p.Load, p.Machines
	subscriptions = l.Conversations * hops
	part = p.spread(Part{
		Name: "NATS",
		Causes: []Cause{
			{"messages", l.Messages * f.NATS / micros},
			{"copies of the streams", l.Messages * f.NATS * (m.Replicas - 1) / micros},
		},
		MemoryGiB:  m.Replicas * (natsBase*m.NATSClusters + subscriptions*subscriptionBytes) / gib,
		DiskGiB:    m.Replicas * l.Messages * f.StreamBytes * l.StreamHours * hour / gib,
		NetworkMBs: l.Messages * (m.Replicas*f.StreamBytes + hops*eventBytes) / mb,
		DiskMBs:    m.Replicas * l.Messages * f.StreamBytes / mb,
	}, m.Replicas*m.NATSClusters)
	part.Machines = m.Replicas * m.NATSClusters // more do not help: a stream is in as many servers as it has copies
	return part, subscriptions
}

func (p *Plan) delivery(f Figures) Part {
	l := p.Load
	return p.spread(Part{
		Name:       "delivery",
		Causes:     []Cause{{"messages", l.Messages * f.Delivery / micros}},
		MemoryGiB:  (deliveryBase + l.Conversations*cachedShare*f.ConversationBytes*l.Members/measuredMembers) / gib,
		NetworkMBs: l.Messages * (f.StoreBytes + eventBytes) / mb,
	}, 2)
}

func (p *Plan) history(f Figures) Part {
	l := p.Load
	return p.spread(Part{
		Name:       "history",
		Causes:     []Cause{{"messages", l.Messages * f.History / micros}},
		MemoryGiB:  historyBase / float64(gib),
		NetworkMBs: l.Messages * f.StoreBytes / mb,
	}, 2)
}

func (p *Plan) database(f Figures) Part {
	l, m := p.Load, p.Machines
	part := p.spread(Part{
		Name:      "PostgreSQL",
		Causes:    []Cause{{"messages", l.Messages * f.PostgreSQL / micros}},
		MemoryGiB: (databaseBase*m.Databases + l.Messages*f.StoreBytes*day*hotShare) / gib,
		DiskGiB:   l.Messages * f.StoreBytes * day * l.Days / gib,
		DiskMBs:   l.Messages * f.StoreBytes * journalFactor / mb,
	}, m.Databases)
	part.Machines = m.Databases
	return part
}

// limit fills Limits.
func (p *Plan) limit(f Figures, nats, database Part, subscriptions float64) {
	m := p.Machines
	const (
		moreDatabases  = "more PostgreSQL servers, each with some of the partitions (--databases)"
		moreClusters   = "more NATS clusters, each with some of the partitions (--nats-clusters)"
		morePartitions = "more partitions (--partitions; chosen once, when the installation is made)"
	)
	// The one with the most partitions counts: the partitions may not divide evenly.
	ofDatabases := math.Ceil(m.Partitions/m.Databases) / m.Partitions
	ofClusters := math.Ceil(m.Partitions/m.NATSClusters) / m.Partitions
	ofServers := ofClusters / m.Replicas
	p.Limits = []Limit{
		{"processors of a PostgreSQL server", database.Cores * ofDatabases / (m.Cores * m.Utilization), moreDatabases, databases},
		{"disk of a PostgreSQL server", database.DiskGiB * ofDatabases / m.DiskGiB, moreDatabases + ", or shorter retention (--days)", databases},
		{"memory of a PostgreSQL server", database.MemoryGiB * ofDatabases / m.MemoryGiB, moreDatabases, databases},
		{"writes of a PostgreSQL server's disk", database.DiskMBs * ofDatabases / (m.DiskMBs * m.Utilization), moreDatabases, databases},
		{"processors of a NATS server", nats.Cores * ofServers / (m.Cores * m.Utilization), moreClusters, clusters},
		{"network of a NATS server", nats.NetworkMBs * ofServers / (m.NetworkMBs * m.Utilization), moreClusters, clusters},
		// Every server of a cluster knows which subjects the others have subscriptions to.
		{"memory of a NATS server", (natsBase + subscriptions*ofClusters*subscriptionBytes) / gib / m.MemoryGiB, moreClusters, clusters},
		{"disk of a NATS server", nats.DiskGiB * ofServers / m.DiskGiB, moreClusters + ", or more frequent backups (--stream-hours)", clusters},
		{"writes of a NATS server's disk", nats.DiskMBs * ofServers / (m.DiskMBs * m.Utilization), moreClusters, clusters},
		// One goroutine decides all commands of a partition in order.
		{"the order of one partition", p.Load.Messages / m.Partitions * f.Delivery / micros / m.Utilization, morePartitions, partitions},
	}
	slices.SortStableFunc(p.Limits, func(a, b Limit) int { return cmp.Compare(b.Use, a.Use) })
}

// Divide returns machines on which the load fits: the smallest numbers of databases, NATS clusters and partitions. It returns false if
// no division suffices.
func Divide(f Figures, load Load, m Machines) (Machines, bool) {
	const most = 4096
	for range 3 * most {
		p, err := Compute(f, load, m)
		if err != nil || max(m.Databases, m.NATSClusters, m.Partitions) > most {
			return m, false
		}
		if p.Fits() {
			return m, true
		}
		switch p.Limits[0].divides {
		case partitions:
			m.Partitions *= 2
		case databases:
			m.Databases++
		case clusters:
			m.NATSClusters++
		}
		for m.Partitions < max(m.Databases, m.NATSClusters) {
			m.Partitions *= 2
		}
	}
	return m, false
}
