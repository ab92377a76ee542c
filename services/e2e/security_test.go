package e2e_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
	deliveryv1 "github.com/runnelhq/runnel/proto/runnel/delivery/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/certs"
	"github.com/runnelhq/runnel/pkg/client"
	"github.com/runnelhq/runnel/pkg/listen/reserve"
	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/pkg/telemetry"
	"github.com/runnelhq/runnel/services/e2e/devkeys"
	"github.com/runnelhq/runnel/services/e2e/launch"
	"github.com/runnelhq/runnel/services/gateway"
)

// fortress is Runnel in a hostile network: processes that use mutual TLS with each other, TLS and nkeys with NATS, and TLS
// with clients.
type fortress struct {
	t    *testing.T
	dir  string
	ring *devkeys.Ring
	nats *server.Server

	history, delivery, gateway             *launch.Process
	historyAddr, deliveryAddr, gatewayAddr string
}

func newFortress(t *testing.T) *fortress {
	t.Helper()
	f := &fortress{t: t, dir: t.TempDir(), ring: newRing(t)}
	programs := binaries(t, launch.History, launch.Delivery, launch.Gateway)
	f.nats = startSecuredNATS(t, "secured.conf", natsEnvironment(t, f.ring, "n1", filepath.Join(f.dir, "nats")))
	require.True(t, f.nats.ReadyForConnections(patience))
	f.historyAddr, f.deliveryAddr, f.gatewayAddr = f.address(), f.address(), f.address()
	secretFile := filepath.Join(f.dir, "secret")
	require.NoError(t, os.WriteFile(secretFile, []byte(secret), 0o600))

	f.history = f.run(programs, launch.History, f.historyAddr, nil, "--history.database=sqlite:"+filepath.Join(f.dir, "history.db"))
	f.delivery = f.run(programs, launch.Delivery, f.deliveryAddr, nil, f.broker("delivery")...)
	clients := f.ring.Files(devkeys.Clients)
	f.gateway = f.run(programs, launch.Gateway, f.address(), []string{"RUNNEL_AUTH_HMAC_SECRET_FILE=" + secretFile}, append(f.broker("gateway"),
		"--gateway.listen="+f.gatewayAddr, "--gateway.tls.cert-file="+clients.CertFile, "--gateway.tls.key-file="+clients.KeyFile)...)
	return f
}

func (f *fortress) address() string {
	f.t.Helper()
	address, err := reserve.Address()
	require.NoError(f.t, err)
	return address
}

// broker returns the flags of a service that uses NATS and history.
func (f *fortress) broker(service string) []string {
	return []string{
		"--history-address=" + f.historyAddr, "--nats.url=tls://" + f.nats.Addr().String(),
		"--nats.tls.ca-file=" + f.ring.Files(devkeys.NATS).CAFile, "--nats.nkey-seed-file=" + f.ring.Seed(service),
	}
}

func (f *fortress) run(programs launch.Binaries, program, listen string, environment []string, flags ...string) *launch.Process {
	f.t.Helper()
	name := strings.TrimPrefix(program, "runnel-")
	files, admin := f.ring.Files(name), f.address()
	p, err := launch.Run(f.t.Context(), launch.Command{
		Name: name, Path: programs[program], Env: environment, Log: f.log(name), Ready: "http://" + admin + "/readyz",
		Args: append([]string{
			"--nats.partitions=2", "--admin.listen=" + admin, "--rpc.listen=" + listen,
			"--rpc.tls.cert-file=" + files.CertFile, "--rpc.tls.key-file=" + files.KeyFile, "--rpc.tls.ca-file=" + files.CAFile,
		}, flags...),
		Crashed: func(name string, err error) { f.t.Errorf("%s: %v", name, err) },
	})
	require.NoError(f.t, err)
	f.t.Cleanup(func() { require.NoError(f.t, p.Stop()) })
	return p
}

func (f *fortress) log(name string) string { return filepath.Join(f.dir, name+".log") }

// as calls a service with the certificate of a role.
func (f *fortress) as(address string, service rpc.Role, files certs.Config) *grpc.ClientConn {
	f.t.Helper()
	conn, err := rpc.Dial(address, rpc.ClientConfig{Service: service, TLS: files}, telemetry.Discard())
	require.NoError(f.t, err)
	f.t.Cleanup(func() { require.NoError(f.t, conn.Close()) })
	return conn
}

// trust returns the TLS configuration of clients.
func (f *fortress) trust() *tls.Config {
	f.t.Helper()
	pem, err := os.ReadFile(f.ring.Files(devkeys.Clients).CAFile)
	require.NoError(f.t, err)
	roots := x509.NewCertPool()
	require.True(f.t, roots.AppendCertsFromPEM(pem))
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
}

// person is a user with a client.
type person struct {
	*client.Client

	heard chan string
}

func (f *fortress) person(user string) person {
	f.t.Helper()
	heard := make(chan string, 1000)
	c, err := client.New(client.Config{
		URL: "wss://" + f.gatewayAddr + gateway.Path, DeviceID: "device", TLS: f.trust(),
		Token: func(context.Context) (string, error) { return token(f.t, user), nil },
		OnEvent: func(_ context.Context, event client.Event) {
			if message := event.GetBody().GetMessage(); message != nil {
				heard <- message.GetText()
			}
		},
	})
	require.NoError(f.t, err)
	require.NoError(f.t, c.Start(context.WithoutCancel(f.t.Context()))) // it lives until it is closed
	f.t.Cleanup(func() {
		_ = c.Close() // reports how it ended, which for a client that is locked out is an error
	})
	return person{c, heard}
}

func (p person) hears(t *testing.T, text string) {
	t.Helper()
	select {
	case heard := <-p.heard:
		require.Equal(t, text, heard)
	case <-time.After(patience):
		t.Fatalf("nothing was heard of %q", text)
	}
}

func (f *fortress) say(from person, conversation, text string) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	defer cancel()
	outcome, err := from.Send(ctx, conversation, text)
	require.NoError(f.t, err)
	require.NotZero(f.t, outcome.GetSeq())
}

// TestTheSecuredSystem sends one message through a fully secured system, and tests what operators and internal services may
// do, who is refused, and new certificates while it runs.
func TestTheSecuredSystem(t *testing.T) {
	f := newFortress(t)
	ann, bob := f.person("ann"), f.person("bob")
	id, err := ann.OpenDirect(t.Context(), "bob")
	require.NoError(t, err)
	f.say(ann, id, "behind walls")
	bob.hears(t, "behind walls")
	ann.hears(t, "behind walls")

	t.Run("strangers are kept out", f.strangers)
	t.Run("roles are kept apart", f.roles)
	t.Run("a service of the house sends for a user", func(t *testing.T) {
		conn := f.as(f.deliveryAddr, rpc.RoleDelivery, f.ring.Files("service"))
		command, err := uuid.NewV7()
		require.NoError(t, err)
		answer, err := deliveryv1.NewDeliveryServiceClient(conn).Submit(t.Context(), &deliveryv1.SubmitRequest{
			Sender: "ann", ConversationId: id, CommandId: command.String(), Body: text("by the house"),
		})
		require.NoError(t, err)
		require.NotZero(t, answer.GetOutcome().GetSeq())
		bob.hears(t, "by the house")
		ann.hears(t, "by the house")
	})
	operator := adminv1.NewAdminServiceClient(f.as(f.deliveryAddr, rpc.RoleDelivery, f.ring.Files("admin")))
	t.Run("an operator sees everything", func(t *testing.T) {
		connections, err := operator.ListConnections(t.Context(), &adminv1.ListConnectionsRequest{})
		require.NoError(t, err)
		require.Len(t, connections.GetConnections(), 2, "gateways are asked over NATS, and answer: %v", connections)
		require.Empty(t, connections.GetMissing())
	})
	t.Run("certificates are replaced", func(t *testing.T) { f.replace(t, ann, bob, id) })
	t.Run("an operator locks a user out", func(t *testing.T) {
		answer, err := operator.RevokeUser(t.Context(), &adminv1.RevokeUserRequest{UserId: "bob"})
		require.NoError(t, err)
		require.Empty(t, answer.GetMissing())
		require.Eventually(t, func() bool {
			connections, err := operator.ListConnections(t.Context(), &adminv1.ListConnectionsRequest{UserId: "bob"})
			return err == nil && len(connections.GetMissing()) == 0 && len(connections.GetConnections()) == 0
		}, patience, patience/1000)
	})

	for _, name := range []string{"gateway", "delivery"} {
		log, err := os.ReadFile(f.log(name))
		require.NoError(t, err)
		require.NotContains(t, strings.ToLower(string(log)), "permissions violation", "%s does nothing that its user may not", name)
	}
}

func (f *fortress) strangers(t *testing.T) {
	response, err := http.Get("http://" + f.gatewayAddr + gateway.Path)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusBadRequest, response.StatusCode, "clients must use TLS")
	_, err = tls.Dial("tcp", f.gatewayAddr, &tls.Config{MinVersion: tls.VersionTLS12})
	var unknown *tls.CertificateVerificationError
	require.ErrorAs(t, err, &unknown, "a client that knows the authority is not deceived by another")
	_, err = tls.Dial("tcp", f.gatewayAddr, &tls.Config{MaxVersion: tls.VersionTLS11, RootCAs: f.trust().RootCAs})
	require.Error(t, err)

	for _, address := range []string{f.historyAddr, f.deliveryAddr} {
		plain, err := rpc.Dial(address, rpc.ClientConfig{Service: rpc.RoleHistory}, telemetry.Discard())
		require.NoError(t, err)
		_, err = historyv1.NewHistoryServiceClient(plain).Heads(t.Context(), &historyv1.HeadsRequest{})
		require.Equal(t, codes.Unavailable, status.Code(err), "without TLS")
		require.NoError(t, plain.Close())

		nameless, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})))
		require.NoError(t, err)
		_, err = historyv1.NewHistoryServiceClient(nameless).Heads(t.Context(), &historyv1.HeadsRequest{})
		require.Equal(t, codes.Unavailable, status.Code(err), "without a certificate")
		require.NoError(t, nameless.Close())

		files := f.ring.Files(devkeys.Clients) // a certificate, but of another authority
		files.CAFile = f.ring.Files("history").CAFile
		_, err = historyv1.NewHistoryServiceClient(f.as(address, rpc.RoleHistory, files)).Heads(t.Context(), &historyv1.HeadsRequest{})
		require.Equal(t, codes.Unavailable, status.Code(err))
	}
}

func (f *fortress) roles(t *testing.T) {
	appending := func(role string) codes.Code {
		_, err := historyv1.NewHistoryServiceClient(f.as(f.historyAddr, rpc.RoleHistory, f.ring.Files(role))).Append(t.Context(), &historyv1.AppendRequest{})
		return status.Code(err)
	}
	for _, role := range []string{"gateway", "history", "admin", "service"} {
		require.Equal(t, codes.PermissionDenied, appending(role), role)
	}
	require.Equal(t, codes.InvalidArgument, appending("delivery"), "it may, but not nothing")
	for _, role := range []string{"gateway", "delivery", "history", "service"} {
		_, err := adminv1.NewAdminServiceClient(f.as(f.deliveryAddr, rpc.RoleDelivery, f.ring.Files(role))).GetStatus(t.Context(), &adminv1.GetStatusRequest{})
		require.Equal(t, codes.PermissionDenied, status.Code(err), role)
	}
	log, err := os.ReadFile(f.log("history"))
	require.NoError(t, err)
	require.Contains(t, string(log), "runnel-gateway", "who was refused is in the log")
	metrics, err := f.history.Metrics(t.Context())
	require.NoError(t, err)
	require.InDelta(t, 4, metrics[`runnel_rpc_refused_total{method="/runnel.history.v1.HistoryService/Append"}`], 0)
	require.NotZero(t, metrics[`runnel_tls_certificate_expiry_seconds{use="rpc"}`])
	metrics, err = f.gateway.Metrics(t.Context())
	require.NoError(t, err)
	require.NotZero(t, metrics[`runnel_tls_certificate_expiry_seconds{use="clients"}`])
}

// replace gives all parts new authorities and new certificates while messages are sent. Then every connection is made
// again, without a restart of gateway or delivery: nothing old would be trusted.
func (f *fortress) replace(t *testing.T, ann, bob person, id string) {
	t.Helper()
	gatewayPID, deliveryPID := f.gateway.PID(), f.delivery.PID()
	require.NoError(t, f.ring.Replace())
	f.say(ann, id, "meanwhile")
	bob.hears(t, "meanwhile")

	require.NoError(t, f.nats.Reload()) // what --signal reload does
	clients, err := f.nats.Connz(&server.ConnzOptions{})
	require.NoError(t, err)
	require.NotEmpty(t, clients.Conns)
	for _, info := range clients.Conns {
		require.NoError(t, f.nats.DisconnectClientByID(info.Cid))
	}
	require.NoError(t, f.history.Stop())
	require.NoError(t, f.history.Restart(t.Context()))
	f.say(ann, id, "with new papers")
	bob.hears(t, "with new papers")

	late := f.person("ann") // trusts only the gateways' new authority
	f.say(late, id, "from a new device")
	bob.hears(t, "from a new device")
	require.Equal(t, gatewayPID, f.gateway.PID())
	require.Equal(t, deliveryPID, f.delivery.PID())
}

// A rollout in which the keys of two services are exchanged stops at once, instead of starting services that receive
// nothing.
func TestAServiceWithAnothersKeyDoesNotStart(t *testing.T) {
	f := newFortress(t)
	for program, another := range map[string]string{launch.Gateway: "delivery", launch.Delivery: "gateway"} {
		files := f.ring.Files(strings.TrimPrefix(program, "runnel-"))
		admin := f.address()
		_, err := launch.Run(t.Context(), launch.Command{
			Name: "mistaken", Path: binaries(t, program)[program], Log: f.log("mistaken-" + program), Ready: "http://" + admin + "/readyz",
			Env: []string{"RUNNEL_AUTH_HMAC_SECRET=" + secret},
			Args: append(f.broker(another), "--nats.partitions=2", "--admin.listen="+admin, "--rpc.listen="+f.address(),
				"--rpc.tls.cert-file="+files.CertFile, "--rpc.tls.key-file="+files.KeyFile, "--rpc.tls.ca-file="+files.CAFile,
				"--"+strings.TrimPrefix(program, "runnel-")+map[string]string{launch.Gateway: ".listen=" + f.address(), launch.Delivery: ".name=mistaken"}[program]),
		})
		require.ErrorContains(t, err, "NATS refuses what this service needs", program)
	}
}
