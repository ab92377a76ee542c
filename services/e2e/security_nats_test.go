package e2e_test

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/certs"
	"github.com/runnelhq/runnel/pkg/listen/reserve"
	"github.com/runnelhq/runnel/services/e2e/devkeys"
)

// natsConfigs is the directory of the files with which operators start NATS.
const natsConfigs = "../../deploy/nats"

// newRing makes the keys of an installation.
func newRing(t *testing.T) *devkeys.Ring {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "keys")
	ring, err := devkeys.Make(dir, []string{"127.0.0.1", "localhost"}, time.Hour)
	require.NoError(t, err)
	return ring
}

// natsEnvironment is the environment of these files, as NAME=value.
func natsEnvironment(t *testing.T, ring *devkeys.Ring, name, store string) []string {
	t.Helper()
	files := ring.Files(devkeys.NATS)
	users, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(files.CertFile)), "nats.env"))
	require.NoError(t, err)
	return append(strings.Fields(string(users)),
		"NAME="+name, "STORE="+store, "CLIENT=127.0.0.1:-1", "MONITOR=127.0.0.1:-1",
		"TLS_CERT="+files.CertFile, "TLS_KEY="+files.KeyFile, "TLS_CA="+files.CAFile)
}

// startSecuredNATS runs a server from one of the operators' files.
func startSecuredNATS(t *testing.T, file string, environment []string) *server.Server {
	t.Helper()
	for _, variable := range environment {
		name, value, _ := strings.Cut(variable, "=")
		t.Setenv(name, value)
	}
	options, err := server.ProcessConfigFile(filepath.Join(natsConfigs, file))
	require.NoError(t, err)
	require.True(t, options.SyncAlways, "what is acknowledged is on disk")
	options.NoSigs, options.NoLog = true, true
	ns, err := server.NewServer(options)
	require.NoError(t, err)
	ns.Start()
	t.Cleanup(func() {
		ns.Shutdown()
		ns.WaitForShutdown()
	})
	return ns
}

// as are the settings of a service.
func natsAs(ring *devkeys.Ring, url, service string) broker.Config {
	cfg := broker.Config{
		URL: url, NkeySeedFile: ring.Seed(service), TLS: certs.Config{CAFile: ring.Files(devkeys.NATS).CAFile},
		Partitions: 2, Replicas: 1, MaxBytes: 1 << 20, MaxAge: time.Hour, DuplicateWindow: time.Minute,
	}
	return cfg
}

func connectNATS(t *testing.T, cfg broker.Config, service string) *nats.Conn {
	t.Helper()
	nc, err := broker.Connect(cfg, "runnel-"+service, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	return nc
}

// TestUsersOfNATSHaveTheLeastSubjects tries forbidden operations with each user's own connection: an attacker who controls
// a gateway can neither read nor disturb the traffic of others.
func TestUsersOfNATSHaveTheLeastSubjects(t *testing.T) {
	ring := newRing(t)
	ns := startSecuredNATS(t, "secured.conf", natsEnvironment(t, ring, "n1", t.TempDir()))
	require.True(t, ns.ReadyForConnections(patience))
	url := "tls://" + ns.Addr().String()
	delivery := connectNATS(t, natsAs(ring, url, "delivery"), "delivery")
	js, err := jetstream.New(delivery)
	require.NoError(t, err)
	require.NoError(t, broker.EnsureStreams(t.Context(), js, natsAs(ring, url, "delivery")))
	gateway := connectNATS(t, natsAs(ring, url, "gateway"), "gateway")
	_, err = gateway.Request("in.0", []byte("command"), patience)
	require.NoError(t, err, "commands get in")
	stream, err := js.Stream(t.Context(), broker.StreamName(0))
	require.NoError(t, err)
	require.Equal(t, uint64(1), stream.CachedInfo().State.Msgs)

	for service, denied := range map[string]struct{ publish, subscribe []string }{
		"gateway": {
			publish: []string{
				"in.0.server", "live.d1", "joined", "revoked", "result.gateway.gw-1", "result.w", "lease.released", "ops.all.gateway.Disconnect", "ops.one.gw-1.gateway.Disconnect",
				"$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.INFO.IN_0", "$JS.API.STREAM.CREATE.X", "$JS.API.STREAM.UPDATE.IN_0",
				"$JS.API.STREAM.PURGE.IN_0", "$JS.API.STREAM.DELETE.IN_0", "$JS.API.STREAM.MSG.GET.IN_0", "$JS.API.STREAM.MSG.DELETE.IN_0",
				"$JS.API.DIRECT.GET.IN_0", "$JS.API.CONSUMER.CREATE.IN_0", "$JS.API.CONSUMER.CREATE.IN_0.c", "$JS.API.CONSUMER.MSG.NEXT.IN_0.c",
				"_INBOX_delivery.x", "$SYS.REQ.SERVER.PING",
			},
			subscribe: []string{
				">", "*", "in.>", "in.*", "in.0", "ack.*", "result.>", "result.*", "ops.>", "ops.all.>", "ops.all.delivery.*",
				"ops.answer.*", "_INBOX.>", "_INBOX_delivery.>", "$JS.>", "$SYS.>",
			},
		},
		"delivery": {
			publish: []string{
				"ack.0", "$JS.API.INFO", "$JS.API.STREAM.DELETE.IN_0", "$JS.API.STREAM.MSG.DELETE.IN_0",
				"$JS.API.STREAM.SNAPSHOT.IN_0", "$JS.API.STREAM.RESTORE.IN_0", "$JS.API.STREAM.LEADER.STEPDOWN.IN_0", "_INBOX_gateway.x", "$SYS.REQ.SERVER.PING",
			},
			subscribe: []string{">", "*", "in.*", "live.*", "joined", "ops.>", "ops.all.gateway.*", "_INBOX.>", "_INBOX_gateway.>", "$JS.>", "$SYS.>"},
		},
	} {
		for _, subject := range denied.publish {
			nc := connectNATS(t, natsAs(ring, url, service), service)
			require.NoError(t, nc.Publish(subject, nil))
			require.NoError(t, nc.Flush())
			require.ErrorIs(t, nc.LastError(), nats.ErrPermissionViolation, "%s publishes %s", service, subject)
			nc.Close()
		}
		for _, subject := range denied.subscribe {
			nc := connectNATS(t, natsAs(ring, url, service), service)
			_, err := nc.SubscribeSync(subject)
			require.NoError(t, err)
			require.NoError(t, nc.Flush())
			require.ErrorIs(t, nc.LastError(), nats.ErrPermissionViolation, "%s subscribes to %s", service, subject)
			nc.Close()
		}
	}

	// The broker answers a publish on the subject in the publish. That must not allow a request in the name of another.
	for _, reply := range []string{"$JS.API.STREAM.PURGE.IN_0", "$JS.API.STREAM.DELETE.IN_0", "$JS.API.STREAM.MSG.DELETE.IN_0"} {
		require.NoError(t, gateway.PublishRequest("in.0", reply, []byte("command")))
	}
	require.NoError(t, gateway.Flush())
	_, err = gateway.Request("in.0", []byte("command"), patience)
	require.NoError(t, err)
	stream, err = js.Stream(t.Context(), broker.StreamName(0))
	require.NoError(t, err)
	require.Equal(t, uint64(1), stream.CachedInfo().State.FirstSeq, "nothing was lost")
	require.GreaterOrEqual(t, stream.CachedInfo().State.Msgs, uint64(2))
	// A user that receives a message must not be able to answer on any subject that its sender named: a gateway could send
	// itself a message that names any subject.
	for _, reply := range []string{"revoked", "live.d1", "ops.all.gateway.Disconnect", "$JS.API.STREAM.DELETE.IN_0", "_INBOX_delivery.x"} {
		nc := connectNATS(t, natsAs(ring, url, "gateway"), "gateway")
		heard, err := nc.SubscribeSync("ops.alive")
		require.NoError(t, err)
		require.NoError(t, nc.PublishRequest("ops.alive", reply, nil))
		msg, err := heard.NextMsg(patience)
		require.NoError(t, err)
		require.NoError(t, msg.Respond([]byte("forged")))
		require.NoError(t, nc.Flush())
		require.ErrorIs(t, nc.LastError(), nats.ErrPermissionViolation, "answers on %s", reply)
		nc.Close()
	}
	require.NoError(t, gateway.Publish("ops.answer.q", nil), "operators' questions are answered on subjects for that")
	require.NoError(t, gateway.Flush())
	require.NoError(t, gateway.LastError())
	// Operations that the files refuse to one user are refused by the streams to all.
	require.True(t, stream.CachedInfo().Config.DenyDelete)
}

// TestStrangersDoNotGetIntoNATS tries connections without a service's keys.
func TestStrangersDoNotGetIntoNATS(t *testing.T) {
	ring := newRing(t)
	ns := startSecuredNATS(t, "secured.conf", natsEnvironment(t, ring, "n1", t.TempDir()))
	require.True(t, ns.ReadyForConnections(patience))
	secured, plain := "tls://"+ns.Addr().String(), "nats://"+ns.Addr().String()
	connect := func(change func(*broker.Config)) error {
		cfg := natsAs(ring, secured, "gateway")
		change(&cfg)
		nc, err := broker.Connect(cfg, "runnel-gateway", slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if err == nil {
			nc.Close()
		}
		return err
	}
	require.NoError(t, connect(func(*broker.Config) {}))
	require.NoError(t, connect(func(cfg *broker.Config) { cfg.URL = plain }), "a server that has TLS is not spoken to without")

	require.ErrorIs(t, connect(func(cfg *broker.Config) { cfg.NkeySeedFile = "" }), nats.ErrAuthorization)
	other, err := nkeys.CreateUser()
	require.NoError(t, err)
	seed, err := other.Seed()
	require.NoError(t, err)
	foreign := filepath.Join(t.TempDir(), "seed")
	require.NoError(t, os.WriteFile(foreign, seed, 0o600))
	require.ErrorIs(t, connect(func(cfg *broker.Config) { cfg.NkeySeedFile = foreign }), nats.ErrAuthorization)

	err = connect(func(cfg *broker.Config) { cfg.TLS = certs.Config{CAFile: ring.Files("gateway").CAFile} })
	require.ErrorContains(t, err, "unknown authority", "a server of another authority is not believed")
	err = connect(func(cfg *broker.Config) { cfg.TLS = certs.Config{} })
	require.Error(t, err, "nor by what the system believes")
	err = connect(func(cfg *broker.Config) { cfg.NkeySeedFile = ring.Files("gateway").KeyFile })
	require.ErrorContains(t, err, "nkey seed")
	require.NotContains(t, err.Error(), string(seed))
}

// TestAClusterOfSecuredServers runs three servers of the operators' file: the streams have three copies, and a certificate of
// the services does not make a server.
func TestAClusterOfSecuredServers(t *testing.T) {
	ring := newRing(t)
	var addresses, routes []string
	for range 3 {
		address, err := reserve.Address()
		require.NoError(t, err)
		addresses = append(addresses, address)
		routes = append(routes, "tls://"+address)
	}
	var servers []*server.Server
	for i, address := range addresses {
		environment := natsEnvironment(t, ring, fmt.Sprintf("n%d", i), t.TempDir())
		servers = append(servers, startSecuredNATS(t, "secured-cluster.conf", append(environment, "CLUSTER="+address, "ROUTES=["+strings.Join(routes, ", ")+"]")))
	}
	for _, ns := range servers {
		require.True(t, ns.ReadyForConnections(patience))
	}
	cfg := natsAs(ring, "tls://"+servers[0].Addr().String(), "delivery")
	cfg.Replicas = 3
	nc := connectNATS(t, cfg, "delivery")
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return broker.EnsureStreams(t.Context(), js, cfg) == nil }, patience, patience/100)
	gateway := connectNATS(t, natsAs(ring, "tls://"+servers[2].Addr().String(), "gateway"), "gateway")
	require.Eventually(t, func() bool {
		_, err := gateway.Request("in.1", []byte("command"), patience/10)
		return err == nil
	}, patience, patience/100)

	join := func(files certs.Config) error {
		pair, err := tls.LoadX509KeyPair(files.CertFile, files.KeyFile)
		require.NoError(t, err)
		conn, err := net.Dial("tcp", addresses[0])
		require.NoError(t, err)
		defer conn.Close()
		require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
		peer := tls.Client(conn, &tls.Config{
			InsecureSkipVerify:   true, // an intruder trusts any certificate
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil },
		})
		_, err = peer.Read(make([]byte, 1)) // a server that accepts another one presents its own certificate
		return err
	}
	require.NoError(t, join(ring.Files(devkeys.NATS)))
	require.ErrorContains(t, join(ring.Files("gateway")), "certificate", "the services' authority opens no routes")
}
