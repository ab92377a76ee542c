package certs_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/runnelhq/runnel/pkg/certs"
	"github.com/runnelhq/runnel/pkg/certs/certstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// side is one end of connections: a bundle with its log and its metrics.
type side struct {
	*certs.Bundle

	log      *bytes.Buffer
	registry *prometheus.Registry
}

func load(t *testing.T, cfg certs.Config) side {
	t.Helper()
	s := side{log: &bytes.Buffer{}, registry: prometheus.NewRegistry()}
	var err error
	s.Bundle, err = certs.Load(cfg, certs.Options{Use: "rpc", Log: slog.New(slog.NewTextHandler(s.log, nil)), Registerer: s.registry})
	require.NoError(t, err)
	return s
}

// expiry returns the value of the expiry metric.
func (s side) expiry(t *testing.T) int64 {
	t.Helper()
	require.Equal(t, 1, testutil.CollectAndCount(s.registry, "runnel_tls_certificate_expiry_seconds"))
	return int64(testutil.ToFloat64(s.Bundle))
}

// shake makes a connection in memory between two sides. It returns the certificate that each side received, and the first
// error. It sends one byte back, because in TLS 1.3 a client learns only then whether the server accepts its certificate.
func shake(server, client *tls.Config) (seenByServer, seenByClient *x509.Certificate, err error) {
	left, right := net.Pipe()
	answering, asking := tls.Server(left, server), tls.Client(right, client)
	var wait sync.WaitGroup
	var serverErr error
	wait.Go(func() {
		if _, serverErr = answering.Write([]byte{1}); serverErr != nil {
			_ = left.Close()
		}
	})
	_, clientErr := asking.Read(make([]byte, 1))
	_ = right.Close()
	wait.Wait()
	_ = left.Close()
	if err := errors.Join(serverErr, clientErr); err != nil {
		return nil, nil, err
	}
	if peers := answering.ConnectionState().PeerCertificates; len(peers) > 0 {
		seenByServer = peers[0]
	}
	return seenByServer, asking.ConnectionState().PeerCertificates[0], nil
}

func serial(t *testing.T, cfg certs.Config) string {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
	require.NoError(t, err)
	return pair.Leaf.SerialNumber.String()
}

func TestBothSidesAreProved(t *testing.T) {
	ca := certstest.New(t)
	server := load(t, ca.Issue(t.TempDir(), "runnel-history", "127.0.0.1", "spiffe://house/history"))
	client := load(t, ca.Issue(t.TempDir(), "runnel-gateway"))

	seenByServer, seenByClient, err := shake(server.ForServices(), client.ToService("runnel-history"))
	require.NoError(t, err)
	require.Equal(t, []string{"runnel-gateway"}, seenByServer.DNSNames)
	require.Equal(t, "spiffe://house/history", seenByClient.URIs[0].String())
	require.Equal(t, seenByClient.NotAfter.Unix(), server.expiry(t))

	t.Run("another name", func(t *testing.T) {
		_, _, err := shake(server.ForServices(), client.ToService("runnel-delivery"))
		require.ErrorContains(t, err, "runnel-delivery")
	})
	t.Run("no certificate", func(t *testing.T) {
		anonymous := client.ToService("runnel-history")
		anonymous.Certificates = nil
		_, _, err := shake(server.ForServices(), anonymous)
		require.ErrorContains(t, err, "certificate required")
	})
	t.Run("another authority", func(t *testing.T) {
		stranger := load(t, certstest.New(t).Issue(t.TempDir(), "runnel-gateway"))
		_, _, err := shake(server.ForServices(), stranger.ToService("runnel-history"))
		require.ErrorContains(t, err, "unknown authority", "the client does not trust the server")
		credulous := stranger.ToService("runnel-history")
		credulous.RootCAs = client.Roots()
		credulous.Certificates = nil // presents its certificate although the server names other authorities
		credulous.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return stranger.Certificate(), nil
		}
		_, _, err = shake(server.ForServices(), credulous)
		require.ErrorContains(t, err, "unknown certificate authority", "nor the server the client")
	})
	t.Run("an expired certificate", func(t *testing.T) {
		// Load refuses an expired certificate, so this certificate expires after it was loaded.
		late := client.ToService("runnel-history")
		late.Time = func() time.Time { return time.Now().Add(2 * time.Hour) }
		_, _, err := shake(server.ForServices(), late)
		require.ErrorContains(t, err, "expired")
	})
	t.Run("old TLS", func(t *testing.T) {
		old := client.ToService("runnel-history")
		old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
		_, _, err := shake(server.ForServices(), old)
		require.ErrorContains(t, err, "protocol version")
		_, _, err = shake(server.ForClients(), old)
		require.NoError(t, err, "clients are the world, which is older")
		old.MinVersion, old.MaxVersion = tls.VersionTLS11, tls.VersionTLS11
		_, _, err = shake(server.ForClients(), old)
		require.ErrorContains(t, err, "protocol version")
	})
}

// The clock of synctest starts in another year, in which the certificates are not valid. Therefore the test makes its own
// certificates.
func TestNewFilesAreTakenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, dir := certstest.New(t), t.TempDir()
		cfg := ca.Issue(dir, "runnel-history")
		server, client := load(t, cfg), load(t, ca.Issue(t.TempDir(), "runnel-gateway"))
		clients := server.ForClients() // made once, for all handshakes
		seen := func() (services, world string) {
			_, one, err := shake(server.ForServices(), client.ToService("runnel-history"))
			require.NoError(t, err)
			_, other, err := shake(clients, client.ToService("runnel-history"))
			require.NoError(t, err)
			return one.SerialNumber.String(), other.SerialNumber.String()
		}
		first := serial(t, cfg)
		ca.IssueFor(48*time.Hour, dir, "runnel-history")
		second := serial(t, cfg)
		require.NotEqual(t, first, second)

		a, b := seen()
		require.Equal(t, []string{first, first}, []string{a, b}, "the files are looked at once a second at most")
		time.Sleep(time.Second)
		a, b = seen()
		require.Equal(t, []string{second, second}, []string{a, b})
		require.Equal(t, time.Now().Add(48*time.Hour).Truncate(24*time.Hour).Unix(), time.Unix(server.expiry(t), 0).Truncate(24*time.Hour).Unix())
		require.Contains(t, server.log.String(), "read again")
	})
}

// Kubernetes replaces a secret by changing a link to another directory.
func TestALinkThatIsMovedIsAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, root := certstest.New(t), t.TempDir()
		first := ca.Issue(filepath.Join(root, "..1"), "runnel-history")
		second := ca.Issue(filepath.Join(root, "..2"), "runnel-history")
		link := filepath.Join(root, "..data")
		require.NoError(t, os.Symlink("..1", link))
		b := load(t, certs.Config{CertFile: filepath.Join(link, "cert.pem"), KeyFile: filepath.Join(link, "key.pem")})
		require.Equal(t, serial(t, first), b.Certificate().Leaf.SerialNumber.String())

		require.NoError(t, os.Symlink("..2", link+".new"))
		require.NoError(t, os.Rename(link+".new", link))
		time.Sleep(time.Second)
		require.Equal(t, serial(t, second), b.Certificate().Leaf.SerialNumber.String())
	})
}

func TestFilesThatCannotBeUsedChangeNothing(t *testing.T) {
	early := certstest.New(t).Issue(t.TempDir(), "runnel-history") // synctest's clock is behind the real one
	earlyCert, err := os.ReadFile(early.CertFile)
	require.NoError(t, err)
	earlyKey, err := os.ReadFile(early.KeyFile)
	require.NoError(t, err)
	synctest.Test(t, func(t *testing.T) {
		ca, dir, spare := certstest.New(t), t.TempDir(), t.TempDir()
		cfg := ca.Issue(dir, "runnel-history")
		server := load(t, cfg)
		first := serial(t, cfg)
		good := map[string][]byte{}
		for _, path := range []string{cfg.CertFile, cfg.KeyFile, cfg.CAFile} {
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			good[path] = data
		}
		other := ca.Issue(spare, "runnel-history")
		key, err := os.ReadFile(other.KeyFile)
		require.NoError(t, err)
		expired := ca.IssueFor(-time.Minute, filepath.Join(spare, "expired"), "runnel-history")
		old, err := os.ReadFile(expired.CertFile)
		require.NoError(t, err)
		oldKey, err := os.ReadFile(expired.KeyFile)
		require.NoError(t, err)
		for name, broken := range map[string]struct {
			files map[string][]byte
			says  string
		}{
			"half written":  {map[string][]byte{cfg.CertFile: good[cfg.CertFile][:100]}, "failed to find any PEM data"},
			"another's key": {map[string][]byte{cfg.KeyFile: key}, "does not match"},
			"expired":       {map[string][]byte{cfg.CertFile: old, cfg.KeyFile: oldKey}, "expired"},
			"not good yet":  {map[string][]byte{cfg.CertFile: earlyCert, cfg.KeyFile: earlyKey}, "is valid from"},
			"no authority":  {map[string][]byte{cfg.CAFile: []byte("nothing\n")}, "contains no certificate"},
			"gone":          {map[string][]byte{cfg.CertFile: nil}, "no such file"},
		} {
			server.log.Reset()
			for path, data := range broken.files {
				require.NoError(t, os.Remove(path))
				if data != nil {
					require.NoError(t, os.WriteFile(path, data, 0o600))
				}
			}
			for range 3 {
				time.Sleep(time.Second)
				require.Equal(t, first, server.Certificate().Leaf.SerialNumber.String(), name)
				require.NotNil(t, server.Roots())
			}
			require.Contains(t, server.log.String(), broken.says, name)
			require.Equal(t, 1, strings.Count(server.log.String(), "cannot be used"), "%s: complained about once", name)
			for path, data := range good {
				require.NoError(t, os.WriteFile(path, data, 0o600))
			}
			time.Sleep(time.Second)
			require.Equal(t, first, server.Certificate().Leaf.SerialNumber.String())
		}
		ca.Issue(dir, "runnel-history")
		time.Sleep(time.Second)
		require.NotEqual(t, first, server.Certificate().Leaf.SerialNumber.String(), "the next valid one is used")
	})
}

// A connection made while files are being replaced uses a certificate with its matching key, either the old or the new
// one.
func TestConnectionsSucceedWhileFilesChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, serverDir, clientDir := certstest.New(t), t.TempDir(), t.TempDir()
		server := load(t, ca.Issue(serverDir, "runnel-history"))
		client := load(t, ca.Issue(clientDir, "runnel-gateway"))
		stop := make(chan struct{})
		var replacing sync.WaitGroup
		replacing.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(300 * time.Millisecond):
					ca.Issue(serverDir, "runnel-history")
					ca.Issue(clientDir, "runnel-gateway")
				}
			}
		})
		serials := map[string]bool{}
		for range 60 {
			seenByServer, seenByClient, err := shake(server.ForServices(), client.ToService("runnel-history"))
			require.NoError(t, err)
			serials[seenByServer.SerialNumber.String()], serials[seenByClient.SerialNumber.String()] = true, true
			time.Sleep(250 * time.Millisecond)
		}
		close(stop)
		replacing.Wait()
		require.Greater(t, len(serials), 10)
	})
}

func TestLoadRefuses(t *testing.T) {
	ca, dir := certstest.New(t), t.TempDir()
	cfg := ca.Issue(dir, "runnel-history")
	options := certs.Options{Use: "rpc", Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()}
	for _, test := range []struct {
		cfg  certs.Config
		says string
	}{
		{certs.Config{CertFile: cfg.CertFile}, "belong together"},
		{certs.Config{CertFile: cfg.CertFile, KeyFile: "none.pem"}, "none.pem"},
		{certs.Config{CAFile: cfg.KeyFile}, "contains no certificate"},
		{ca.IssueFor(-time.Second, t.TempDir(), "x"), "expired"},
	} {
		_, err := certs.Load(test.cfg, options)
		require.ErrorContains(t, err, test.says)
	}
	_, err := certs.Load(cfg, options)
	require.NoError(t, err)
	_, err = certs.Load(cfg, options)
	require.NoError(t, err, "a server and a client of one process use the same files")

	wanted, err := certs.Config{}.Mutual()
	require.NoError(t, err)
	require.False(t, wanted)
	_, err = certs.Config{CertFile: "a", KeyFile: "b"}.Mutual()
	require.ErrorContains(t, err, "ca-file")
}

func TestOnlyAuthoritiesMakeNoMetric(t *testing.T) {
	cfg := certstest.New(t).Issue(t.TempDir(), "x")
	b := load(t, certs.Config{CAFile: cfg.CAFile})
	require.Nil(t, b.Certificate())
	require.Zero(t, testutil.CollectAndCount(b.registry))
}
