package delivery

import (
	"time"

	"github.com/runnelhq/runnel/pkg/settings"
	"github.com/runnelhq/runnel/services/delivery/partition"
)

// Config configures a delivery worker. A field with its zero value gets its default, so tests and embedders set only the
// fields that they need.
type Config struct {
	Name string `help:"Name of this worker in leases and logs; a random suffix makes it unique for each start. Defaults to the host's name." default:""`

	LeaseTTL    time.Duration `name:"lease-ttl" help:"How long a lease lasts without renewal. Leases are renewed four times as often." default:"2s" range:"0,100ms..1m"`
	StopTimeout time.Duration `help:"How long a partition may take to finish the append in flight before it is cut off." default:"2s" range:"0,1ms..10m"`

	MaxBatch      int           `help:"Maximum number of commands in one append." default:"512" range:"0..1000"`
	MaxBatchBytes int           `help:"Approximate maximum number of bytes of commands in one append." default:"1048576" range:"0..4194304"`
	AppendTimeout time.Duration `help:"How long to wait for the store before retrying." default:"5s" range:"0,1ms..10m"`
	MaxTries      int           `help:"How often the store may reject a command before it becomes a dead letter." default:"5" range:"0..1000"`

	RepublishCommands int `help:"Number of last committed commands whose outcomes are republished at a takeover. At least the size of one append of the previous worker." default:"1000" range:"0..1000000"`

	CacheMembers   int `help:"Approximate number of members of conversations that each partition keeps in memory." default:"20000" range:"0..100000000"`
	ExplainEntries int `help:"Number of commits kept in memory to explain what happened to an event; each takes about 80 bytes." default:"50000" range:"0..10000000"`

	MaxRefusals   int           `help:"Maximum number of refusals that each partition keeps in memory, for 10 minutes. Above the limit a command that would be refused gets an unknown outcome, and its client sends it again." default:"100000" range:"0..10000000"`
	PurgeInterval time.Duration `help:"How often committed commands are purged from a stream; they are also purged at once when the stream is nearly full. Commands that are not in the last marked backup, and the last 10000, stay until the stream is 90 % full; if no backup was ever marked, those of the last hour stay." default:"30s" range:"0,1ms..1h"`

	FlushInterval time.Duration `help:"Shortest interval at which moved cursors are stored and published; after a quiet time the first are published within a tenth of it." default:"1s" range:"0,1ms..1h"`
}

func (c Config) withDefaults() Config {
	set(&c.LeaseTTL, 2*time.Second)
	set(&c.StopTimeout, 2*time.Second)
	set(&c.MaxBatch, 512)
	set(&c.MaxBatchBytes, 1<<20)
	set(&c.AppendTimeout, 5*time.Second)
	set(&c.MaxTries, 5)
	set(&c.RepublishCommands, 1000)
	set(&c.CacheMembers, 20000)
	set(&c.ExplainEntries, 50000)
	set(&c.MaxRefusals, 100_000)
	set(&c.PurgeInterval, 30*time.Second)
	set(&c.FlushInterval, time.Second)
	return c
}

// ofPartition returns the part of the configuration that a partition worker needs.
func (c Config) ofPartition() partition.Config {
	return partition.Config{
		StopTimeout: c.StopTimeout, AppendTimeout: c.AppendTimeout, FlushInterval: c.FlushInterval, PurgeInterval: c.PurgeInterval,
		MaxBatch: c.MaxBatch, MaxBatchBytes: c.MaxBatchBytes, MaxTries: c.MaxTries, RepublishCommands: c.RepublishCommands,
		CacheMembers: c.CacheMembers, MaxRefusals: c.MaxRefusals,
	}
}

// Validate checks the settings. A zero value stands for the default.
func (c Config) Validate() error { return settings.CheckRanges("delivery.", c) }

// set sets a field to its default if it has its zero value.
func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
