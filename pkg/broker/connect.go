package broker

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Config says how to reach NATS and what the partitions' streams look like. Every service of one installation must
// have the same Partitions.
type Config struct {
	URL        string `help:"NATS servers, separated by commas." default:"nats://127.0.0.1:4222"`
	Partitions int    `help:"Number of partitions. Fixed for the life of an installation." default:"16"`

	Replicas        int           `help:"Copies of each stream: 1 on a single NATS server, 3 in a cluster." default:"1"`
	MaxBytes        int64         `help:"Most bytes of each partition's stream; beyond it sends are refused until the store catches up." default:"268435456"`
	MaxAge          time.Duration `help:"How long commands stay in the stream; must outlast the longest outage of the database." default:"72h"`
	DuplicateWindow time.Duration `help:"How long NATS remembers message ids. Repeats after it are recognised by the history store." default:"2m"`
}

// MaxCommandBytes is the largest command a stream takes.
const MaxCommandBytes = 192 << 10

// Connect connects to NATS and keeps reconnecting for as long as the connection is not closed. While disconnected a
// publish fails at once instead of being buffered: the callers know what to try again.
func Connect(cfg Config, name string, log *slog.Logger, extra ...nats.Option) (*nats.Conn, error) {
	options := append([]nats.Option{
		nats.Name(name),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(100 * time.Millisecond),
		nats.ReconnectJitter(200*time.Millisecond, 200*time.Millisecond),
		nats.ReconnectBufSize(-1),
		nats.Timeout(2 * time.Second),
		// A server that takes nothing any more counts as gone; the default would hold up every publisher for a minute.
		nats.FlusherTimeout(2 * time.Second),
		nats.PingInterval(2 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			log.Warn("lost the connection to NATS", "error", err)
		}),
		nats.ReconnectHandler(func(c *nats.Conn) {
			log.Info("connected to NATS again", "server", c.ConnectedServerName())
		}),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			subject := ""
			if sub != nil {
				subject = sub.Subject
			}
			log.Warn("NATS reported an error", "subject", subject, "error", err)
		}),
	}, extra...)
	nc, err := nats.Connect(cfg.URL, options...)
	if err != nil {
		return nil, fmt.Errorf("connect to NATS at %s: %w", cfg.URL, err)
	}
	return nc, nil
}

// EnsureStreams creates the streams of all partitions, or checks that those that exist have the settings the promises
// rest on. It is safe to call from several processes at once.
func EnsureStreams(ctx context.Context, js jetstream.JetStream, cfg Config) error {
	for p := range cfg.Partitions {
		if _, err := js.CreateOrUpdateStream(ctx, streamConfig(cfg, p)); err != nil {
			return fmt.Errorf("make stream %s: %w", StreamName(p), err)
		}
	}
	return nil
}

// streamConfig is what DESIGN asks of a partition's stream: an append-only log that refuses rather than forgets.
func streamConfig(cfg Config, partition int) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        StreamName(partition),
		Description: "Runnel: commands of one partition, in the order they will be applied",
		Subjects:    []string{CommandSubject(partition)},
		Retention:   jetstream.LimitsPolicy,
		Storage:     jetstream.FileStorage,
		Compression: jetstream.NoCompression,
		Replicas:    cfg.Replicas,
		MaxAge:      cfg.MaxAge,
		MaxBytes:    cfg.MaxBytes,
		MaxMsgSize:  MaxCommandBytes,
		Discard:     jetstream.DiscardNew,
		Duplicates:  cfg.DuplicateWindow,
		DenyDelete:  true,
		DenyPurge:   true,
		AllowDirect: false,
	}
}
