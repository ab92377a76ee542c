package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/runnelhq/runnel/pkg/watched"
)

// Config names the certificate files of one side of mutual TLS. If no file is named, TLS is off.
type Config struct {
	// CertFile and KeyFile are PEM files. CertFile contains the certificate, followed by its chain.
	CertFile string `help:"Certificate (PEM), with its chain. Read again when it changes."`
	KeyFile  string `help:"Key of the certificate (PEM)."`
	// CAFile is a PEM file with authorities. While an authority is being replaced, it contains the old and the new one.
	CAFile string `name:"ca-file" help:"Authorities that must have issued the other side's certificate (PEM). Read again when it changes."`
}

// KeyPair names the certificate files of a server whose clients present no certificates. If no file is named, TLS is off.
type KeyPair struct {
	CertFile string `help:"Certificate (PEM), with its chain. Read again when it changes."`
	KeyFile  string `help:"Key of the certificate (PEM)."`
}

// Config returns the key pair as a Config without authorities.
func (k KeyPair) Config() Config { return Config{CertFile: k.CertFile, KeyFile: k.KeyFile} }

// Empty reports whether no file is named.
func (c Config) Empty() bool { return c == Config{} }

// Check reads the files once, so that unusable files are detected early.
func (c Config) Check() error {
	if (c.CertFile == "") != (c.KeyFile == "") {
		return errHalf
	}
	_, err := (&Bundle{cfg: c}).read()
	return err
}

// Check is Config.Check for a key pair.
func (k KeyPair) Check() error { return k.Config().Check() }

// Mutual reports whether mutual TLS is configured. It returns an error if only some of the required files are named.
func (c Config) Mutual() (bool, error) {
	if c.Empty() {
		return false, nil
	}
	if c.CertFile == "" || c.KeyFile == "" || c.CAFile == "" {
		return false, errors.New("TLS between services needs all of cert-file, key-file and ca-file, or none of them")
	}
	return true, nil
}

var errHalf = errors.New("a certificate file and a key file belong together; one of them is missing")

// Options are used for logs and metrics. All are required.
type Options struct {
	// Use distinguishes the certificate from other certificates of the process: rpc, clients or nats.
	Use        string
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Bundle contains the current content of the files. It is safe for concurrent use.
type Bundle struct {
	cfg    Config
	log    *slog.Logger
	expiry *prometheus.Desc
	files  *watched.Files[content]
}

// content is the content of the files at one moment.
type content struct {
	certificate *tls.Certificate // nil if there is no certificate
	roots       *x509.CertPool   // nil if there are no authorities
}

// Load reads the files for the first time; a file that cannot be used is an error. A certificate requires its key.
// Authorities can be used alone.
func Load(cfg Config, options Options) (*Bundle, error) {
	if (cfg.CertFile == "") != (cfg.KeyFile == "") {
		return nil, errHalf
	}
	b := &Bundle{
		cfg: cfg, log: options.Log.With("certificate", options.Use),
		expiry: prometheus.NewDesc("runnel_tls_certificate_expiry_seconds",
			"When the certificate in use expires, as Unix time.", nil, prometheus.Labels{"use": options.Use}),
	}
	files, err := watched.Load(watched.Config[content]{
		Paths: slices.DeleteFunc([]string{cfg.CertFile, cfg.KeyFile, cfg.CAFile}, func(path string) bool { return path == "" }),
		Read:  b.read, Accept: content.early, Replaced: b.replaced,
		Refused: func(err error) {
			b.log.Error("new certificate files cannot be used; the previous ones stay in force", "error", err)
		},
	})
	if err != nil {
		return nil, err
	}
	b.files = files
	if cfg.CertFile == "" {
		return b, nil
	}
	var taken prometheus.AlreadyRegisteredError
	if err := options.Registerer.Register(b); err != nil && !errors.As(err, &taken) { // a server and a client may use the same files
		return nil, fmt.Errorf("register the metric of certificate %s: %w", cfg.CertFile, err)
	}
	return b, nil
}

// Certificate returns the current certificate; nil if there is none.
func (b *Bundle) Certificate() *tls.Certificate { return b.current().certificate }

// Roots returns the current authorities; nil if there are none, which means the system's authorities.
func (b *Bundle) Roots() *x509.CertPool { return b.current().roots }

// ForServices returns the TLS configuration of a server for services: TLS 1.3, and a client certificate signed by one of
// the authorities. It is valid for one handshake, so that the next handshake uses changed files.
func (b *Bundle) ForServices() *tls.Config {
	c := b.current()
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: certificates(c), ClientCAs: c.roots,
		ClientAuth:             tls.RequireAndVerifyClientCert,
		SessionTicketsDisabled: true, // a client that resumes a session does not present its certificate again
	}
}

// ToService returns the TLS configuration of a client for the service with this name: TLS 1.3, with the client's
// certificate. The service's certificate must contain the name. The configuration is valid for one handshake, like that
// of ForServices.
func (b *Bundle) ToService(name string) *tls.Config {
	c := b.current()
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: certificates(c), RootCAs: c.roots, ServerName: name}
}

// ForClients returns the TLS configuration of a server for the public, whose clients present no certificates: TLS 1.2 or
// later. It is valid for any number of handshakes. It lets clients resume sessions, so that many clients that reconnect
// at once cost less.
func (b *Bundle) ForClients() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return b.Certificate(), nil },
	}
}

func certificates(c content) []tls.Certificate {
	if c.certificate == nil {
		return nil
	}
	return []tls.Certificate{*c.certificate}
}

func (b *Bundle) current() content { return b.files.Current() }

func (b *Bundle) replaced(c content) {
	log := b.log
	if c.certificate != nil {
		log = log.With("expires", c.certificate.Leaf.NotAfter)
	}
	log.Info("certificate files were read again")
}

func (b *Bundle) read() (c content, err error) {
	if b.cfg.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(b.cfg.CertFile, b.cfg.KeyFile)
		if err != nil {
			return c, fmt.Errorf("load certificate %s with key %s: %w", b.cfg.CertFile, b.cfg.KeyFile, err)
		}
		if end := pair.Leaf.NotAfter; time.Now().After(end) {
			return c, fmt.Errorf("load certificate %s: it expired on %s", b.cfg.CertFile, end.Format(time.RFC3339))
		}
		c.certificate = &pair
	}
	if b.cfg.CAFile != "" {
		pem, err := os.ReadFile(b.cfg.CAFile)
		if err != nil {
			return c, fmt.Errorf("load authorities: %w", err)
		}
		c.roots = x509.NewCertPool()
		if !c.roots.AppendCertsFromPEM(pem) {
			return c, fmt.Errorf("load authorities: %s contains no certificate", b.cfg.CAFile)
		}
	}
	return c, nil
}

// early returns an error if the certificate is not valid yet. The other side would refuse it, while the current
// certificate may still be valid. At start-up there is no current certificate, and this machine's clock may be the wrong
// one, so the check is not made.
func (c content) early() error {
	if c.certificate != nil && time.Now().Before(c.certificate.Leaf.NotBefore) {
		return fmt.Errorf("the certificate is valid from %s", c.certificate.Leaf.NotBefore.Format(time.RFC3339))
	}
	return nil
}

// Describe implements prometheus.Collector.
func (b *Bundle) Describe(descs chan<- *prometheus.Desc) { descs <- b.expiry }

// Collect implements prometheus.Collector. It also checks the files, so that an unusable file is reported even if no
// connection is made.
func (b *Bundle) Collect(metrics chan<- prometheus.Metric) {
	expiry := float64(b.Certificate().Leaf.NotAfter.Unix())
	metrics <- prometheus.MustNewConstMetric(b.expiry, prometheus.GaugeValue, expiry)
}
