package broker

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/runnelhq/runnel/pkg/certs"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/settings"
)

// Config contains the address of NATS and the settings of the partitions' streams. All services of an installation must
// have the same Partitions.
type Config struct {
	// URL may begin with tls://, which requires TLS. If a server offers TLS, the connection always uses it.
	URL string `help:"NATS servers, separated by commas; tls://host insists on TLS." default:"nats://127.0.0.1:4222"`
	// TLS may contain only authorities, which replace the system's, or also a client certificate.
	TLS certs.Config `embed:"" prefix:"tls."`
	// NkeySeedFile and CredsFile are two ways to authenticate; at most one may be set. They are read again at each
	// connection.
	NkeySeedFile string `help:"File with the nkey seed of this service's NATS user."`
	CredsFile    string `help:"File with the NATS credentials (JWT and seed) of this service's user."`

	Partitions int `help:"Number of partitions. Fixed for the life of an installation." default:"16" range:"1..1024"`

	Replicas        int           `help:"Copies of each stream: 1 on a single NATS server, 3 in a cluster." default:"1" range:"1..5"`
	MaxBytes        int64         `help:"Most bytes of each partition's stream. Committed commands are purged to make room; new commands are refused only while the stream is full of uncommitted ones." default:"268435456" range:"65536.."`
	MaxAge          time.Duration `help:"Longest time that a command stays in the stream. It must be longer than the longest outage of the database." default:"72h" range:"1m.."`
	DuplicateWindow time.Duration `help:"How long NATS remembers message ids. Later repeats are recognised by the history store." default:"2m" range:"100ms..24h"`
}

// Validate checks the settings without connecting.
func (c Config) Validate() error {
	if err := settings.CheckRanges("nats.", c); err != nil {
		return err
	}
	if c.NkeySeedFile != "" && c.CredsFile != "" {
		return errTwoIdentities
	}
	if c.DuplicateWindow > c.MaxAge {
		return fmt.Errorf("nats.duplicate-window is %v: must be at most nats.max-age, which is %v", c.DuplicateWindow, c.MaxAge)
	}
	if err := c.TLS.Check(); err != nil {
		return fmt.Errorf("nats.tls: %w", err)
	}
	return nil
}

var errTwoIdentities = errors.New("an nkey seed file and a credentials file are set; choose one")

// MaxCommandBytes is the maximum size of a command in a stream.
const MaxCommandBytes = 192 << 10

// Connect connects to NATS and reconnects until the connection is closed. While disconnected, a publish fails at once
// instead of being buffered, because callers decide themselves what to retry.
//
// name is the name of the service, for example "runnel-gateway". Answers to its requests arrive at _INBOX_gateway, so that the
// permissions of one service's user do not let it read the answers to others.
func Connect(cfg Config, name string, log *slog.Logger, registerer prometheus.Registerer, extra ...nats.Option) (*nats.Conn, error) {
	var user *nkeyUser
	if cfg.NkeySeedFile != "" && cfg.CredsFile == "" {
		var err error
		if user, err = newNkeyUser(cfg.NkeySeedFile, log); err != nil {
			return nil, fmt.Errorf("connect to NATS: %w", err)
		}
	}
	secured, err := secure(cfg, user, log, registerer)
	if err != nil {
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	options := append([]nats.Option{
		nats.Name(name),
		nats.CustomInboxPrefix("_INBOX_" + strings.TrimPrefix(name, "runnel-")),
		nats.MaxReconnects(-1),
		// A server may refuse authentication twice while its users or certificates are being replaced. This must not end
		// reconnecting permanently.
		nats.IgnoreAuthErrorAbort(),
		nats.ReconnectWait(100 * time.Millisecond),
		nats.ReconnectJitter(200*time.Millisecond, 200*time.Millisecond),
		nats.ReconnectBufSize(-1),
		nats.Timeout(2 * time.Second),
		// A server that no longer accepts data counts as lost after this time. With the default, it would block every
		// publisher for a minute.
		nats.FlusherTimeout(2 * time.Second),
		nats.PingInterval(2 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil { // err is nil if the connection was closed on purpose
				log.Warn("lost the connection to NATS", "error", err)
			}
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
	}, secured...)
	nc, err := nats.Connect(cfg.URL, append(options, extra...)...)
	if err != nil {
		return nil, fmt.Errorf("connect to NATS at %s: %w", masked(cfg.URL), maskedError(err))
	}
	if user != nil {
		user.conn.Store(nc)
	}
	if err := exportState(nc, registerer); err != nil {
		nc.Close()
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	return nc, nil
}

// exportState registers the state of a connection as a metric. Normally a process has one connection; if several use the
// same registerer, only the first is exported.
func exportState(nc *nats.Conn, registerer prometheus.Registerer) error {
	err := registerer.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "runnel_nats_connected", Help: "1 while the process is connected to NATS, else 0.",
	}, func() float64 {
		if nc.IsConnected() {
			return 1
		}
		return 0
	}))
	if errors.As(err, new(prometheus.AlreadyRegisteredError)) {
		return nil
	}
	return err
}

// secure returns the options for TLS and authentication. Files are read again at each connection, so that they can be
// replaced.
func secure(cfg Config, user *nkeyUser, log *slog.Logger, registerer prometheus.Registerer) (options []nats.Option, err error) {
	if cfg.NkeySeedFile != "" && cfg.CredsFile != "" {
		return nil, errTwoIdentities
	}
	if user != nil {
		options = append(options, user.options()...)
	}
	if cfg.CredsFile != "" {
		options = append(options, nats.UserCredentials(cfg.CredsFile))
	}
	if cfg.TLS.Empty() {
		return options, nil
	}
	bundle, err := certs.Load(cfg.TLS, certs.Options{Use: "nats", Log: log, Registerer: registerer})
	if err != nil {
		return nil, err
	}
	var certificate nats.TLSCertHandler
	if cfg.TLS.CertFile != "" {
		certificate = func() (tls.Certificate, error) { return *bundle.Certificate(), nil }
	}
	var roots nats.RootCAsHandler
	if cfg.TLS.CAFile != "" {
		roots = func() (*x509.CertPool, error) { return bundle.Roots(), nil }
	}
	return append(options, nats.Secure(&tls.Config{MinVersion: tls.VersionTLS13}), nats.ClientTLSConfig(certificate, roots)), nil
}

const mask = "********"

// masked returns a list of servers without the passwords or tokens before the hosts. NATS also accepts servers without a
// scheme.
func masked(list string) string {
	servers := strings.Split(list, ",")
	for i, server := range servers {
		begin := 0
		if scheme := strings.Index(server, "://"); scheme >= 0 {
			begin = scheme + len("://")
		}
		if at := strings.LastIndexByte(server, '@'); at >= begin {
			servers[i] = server[:begin] + mask + server[at:]
		}
	}
	return strings.Join(servers, ",")
}

// userinfo matches the password or token in a URL that an error quotes.
var userinfo = regexp.MustCompile(`://[^\s,]*@`)

// maskedError hides the password in a URL that an error quotes.
func maskedError(err error) error {
	if text := err.Error(); userinfo.MatchString(text) {
		return errors.New(userinfo.ReplaceAllString(text, "://"+mask+"@"))
	}
	return err
}

// ErrStreamOutdated means that the stream denies purging, because an early version of Runnel created it. Such a stream
// cannot be used.
var ErrStreamOutdated = errors.New("the stream denies purging, like those of early versions of Runnel, and NATS cannot lift that; " +
	"let the installation commit everything with the version that made it, then delete the stream: it is created again")

// EnsureStreams creates the streams of all partitions. To existing streams it applies the settings on which Runnel's
// guarantees rest. Several processes may call it at once.
func EnsureStreams(ctx context.Context, js jetstream.JetStream, cfg Config) error {
	for p := range ids.Partition(cfg.Partitions) {
		_, err := js.CreateOrUpdateStream(ctx, streamConfig(cfg, p))
		if err != nil && isOutdated(ctx, js, p) {
			err = ErrStreamOutdated
		}
		if err != nil {
			return fmt.Errorf("create stream %s: %w", StreamName(p), err)
		}
	}
	return nil
}

func isOutdated(ctx context.Context, js jetstream.JetStream, partition ids.Partition) bool {
	stream, err := js.Stream(ctx, StreamName(partition))
	return err == nil && stream.CachedInfo().Config.DenyPurge
}

// streamConfig is the required configuration of a partition's stream: an append-only log that refuses new messages
// instead of deleting old ones. Only the partition's owner purges it, and only committed commands.
func streamConfig(cfg Config, partition ids.Partition) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        StreamName(partition),
		Description: "Runnel: commands of one partition, in the order they will be applied",
		Subjects:    []string{CommandSubject(partition), ServerSubject(partition)},
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
		DenyPurge:   false,
		AllowDirect: false,
	}
}

// Allowed returns an error if NATS has refused an operation on this connection. This happens, for example, if a service
// presents the nkey of another service. Call it after all subscriptions were made: a service that receives no messages
// must not look healthy.
func Allowed(nc *nats.Conn) error {
	const patience = 2 * time.Second
	if err := nc.FlushTimeout(patience); err != nil {
		return nil //nolint:nilerr // the connection is down, which other checks report
	}
	if err := nc.LastError(); errors.Is(err, nats.ErrPermissionViolation) {
		return fmt.Errorf("NATS refuses what this service needs; is it another one's nkey or credentials? %w", err)
	}
	return nil
}
