package broker_test

import (
	"bytes"
	"crypto/tls"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/certs"
	"github.com/runnelhq/runnel/pkg/certs/certstest"
)

// If a server requires certificates, the client presents the certificate that is in the files when the connection is
// made.
func TestConnectShowsTheCertificateOfTheDay(t *testing.T) {
	ca, ours := certstest.New(t), t.TempDir()
	theirs, err := certs.Load(ca.Issue(t.TempDir(), "127.0.0.1"), certs.Options{Use: "nats", Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()})
	require.NoError(t, err)
	shown := make(chan string, 10)
	demanding := theirs.ForServices()
	demanding.VerifyConnection = func(state tls.ConnectionState) error {
		shown <- state.PeerCertificates[0].Subject.CommonName
		return nil
	}
	ns, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, TLSConfig: demanding, TLSVerify: true, TLSTimeout: 5})
	require.NoError(t, err)
	ns.Start()
	t.Cleanup(func() {
		ns.Shutdown()
		ns.WaitForShutdown()
	})
	require.True(t, ns.ReadyForConnections(30*time.Second))

	registry := prometheus.NewRegistry()
	cfg := broker.Config{URL: "tls://" + ns.Addr().String(), TLS: ca.Issue(ours, "first")}
	nc, err := broker.Connect(cfg, "runnel-gateway", slog.New(slog.DiscardHandler), registry)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	require.Equal(t, "first", <-shown)
	require.Equal(t, 1, testutil.CollectAndCount(registry, "runnel_tls_certificate_expiry_seconds"))

	ca.Issue(ours, "second")
	reconnected := make(chan struct{}, 10)
	nc.SetReconnectHandler(func(*nats.Conn) { reconnected <- struct{}{} })
	for name := "first"; name != "second"; { // files are checked once per second
		require.NoError(t, nc.ForceReconnect())
		<-reconnected
		name = <-shown
	}

	_, err = broker.Connect(broker.Config{URL: cfg.URL, TLS: certs.Config{CAFile: cfg.TLS.CAFile}}, "runnel-gateway", slog.New(slog.DiscardHandler), registry)
	require.Error(t, err, "without a certificate")
}

func TestConnectTellsNoSecrets(t *testing.T) {
	for _, url := range []string{
		"nats://runnel:hunter2@127.0.0.1:1", "nats://hunter2@127.0.0.1:1", "nats://127.0.0.1:1,nats://runnel:hunter2@127.0.0.1:2",
		"nats://runnel:hun%ter2@127.0.0.1:1", "nats://runnel:hunter2@127.0.0.1:port", "runnel:hunter2@127.0.0.1:1", "127.0.0.1:1,hunter2@127.0.0.1:2",
		"runnel:hun%ter2@127.0.0.1:1", "nats://runnel:hunter2@more@127.0.0.1:1",
	} {
		var log bytes.Buffer
		_, err := broker.Connect(broker.Config{URL: url}, "test", slog.New(slog.NewTextHandler(&log, nil)), prometheus.NewRegistry())
		require.ErrorContains(t, err, "127.0.0.1", "the error says what was tried")
		for _, said := range []string{err.Error(), log.String()} {
			require.NotContains(t, said, "hunter2")
			require.NotContains(t, said, "hun%ter2")
		}
	}
}

func TestConnectRefuses(t *testing.T) {
	user, err := nkeys.CreateUser()
	require.NoError(t, err)
	seed, err := user.Seed()
	require.NoError(t, err)
	garbled := filepath.Join(t.TempDir(), "seed")
	require.NoError(t, os.WriteFile(garbled, seed[:40], 0o600))
	for _, test := range []struct {
		cfg  broker.Config
		says string
	}{
		{broker.Config{NkeySeedFile: "a", CredsFile: "b"}, "choose one"},
		{broker.Config{NkeySeedFile: filepath.Join(t.TempDir(), "none")}, "no such file"},
		{broker.Config{NkeySeedFile: garbled}, "nkey seed"},
		{broker.Config{TLS: certs.Config{CAFile: garbled}}, "contains no certificate"},
	} {
		test.cfg.URL = nats.DefaultURL
		_, err := broker.Connect(test.cfg, "test", slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		require.ErrorContains(t, err, test.says)
		require.NotContains(t, err.Error(), string(seed[:40]))
	}
}

// Answers arrive at an inbox that contains the service's name, so that permissions can separate services.
func TestInboxesBelongToServices(t *testing.T) {
	b := setup(t, broker.SubmitterConfig{})
	nc, err := broker.Connect(broker.Config{}, "runnel-gateway", slog.New(slog.DiscardHandler), prometheus.NewRegistry(), nats.InProcessServer(b.server))
	require.NoError(t, err)
	defer nc.Close()
	require.Regexp(t, `^_INBOX_gateway\.`, nc.NewInbox())
	require.Regexp(t, `^_INBOX_gateway\.`, nc.NewRespInbox())
}
