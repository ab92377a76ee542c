package attack_test

import (
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/certs"
	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/listen/reserve"
	"github.com/runnelhq/runnel/services/e2e/devkeys"
	"github.com/runnelhq/runnel/services/e2e/launch"
)

// usurpers are senders that a gateway must not have, with that of internal services first.
var usurpers = []string{string(conversation.ServerUser), "@Server", "@server\x00", "@server ", "＠server", "@", "", "*"}

var usurping = []attack{
	{
		name: "commands of the server from a stolen gateway", tries: "erasing, removing, adding, renaming and writing as @server, and as senders that look like it, with the NATS user of a gateway and deploy/nats/secured.conf: on the subject of internal services, and on that of gateways",
		seen: "NATS refuses the one; of the other, those of @server become dead letters, and the rest is refused; the conversation is as it was", bound: bound{megabytes: 64}, run: usurp,
	},
}

// fortress is Runnel in several processes, which trust only each other.
type fortress struct {
	nats     *server.Server
	parts    []*launch.Process
	delivery *launch.Process
	// stolen are the settings with which the gateway uses NATS.
	stolen broker.Config
	// served is a target whose clients are served by the fortress.
	served *target
}

func (f *fortress) close() {
	for _, process := range f.parts {
		process.Kill()
	}
	f.nats.Shutdown()
	f.nats.WaitForShutdown()
}

func (s *target) fortress() *fortress {
	s.Helper()
	dir := s.TempDir()
	keys, err := devkeys.Make(filepath.Join(dir, "keys"), []string{"127.0.0.1", "localhost"}, time.Hour)
	require.NoError(s, err)
	ns := securedNATS(s.T, keys, nil)
	require.True(s, ns.ReadyForConnections(patience))
	f := &fortress{nats: ns}
	programs, err := programs()
	require.NoError(s, err)
	address := func() string {
		free, err := reserve.Address()
		require.NoError(s, err)
		return free
	}
	history, clients := address(), address()
	run := func(program, listen string, flags ...string) *launch.Process {
		name := strings.TrimPrefix(program, "runnel-")
		files, admin := keys.Files(name), address()
		process, err := launch.Run(s.Context(), launch.Command{
			Name: name, Path: programs[program], Log: filepath.Join(dir, name+".log"), Ready: "http://" + admin + "/readyz",
			Env: map[string][]string{launch.Gateway: {"RUNNEL_AUTH_HMAC_SECRET=" + secret}}[program],
			Args: append([]string{
				"--nats.partitions=2", "--admin.listen=" + admin, "--rpc.listen=" + listen,
				"--rpc.tls.cert-file=" + files.CertFile, "--rpc.tls.key-file=" + files.KeyFile, "--rpc.tls.ca-file=" + files.CAFile,
			}, flags...),
		})
		require.NoError(s, err)
		s.Cleanup(process.Kill)
		f.parts = append(f.parts, process)
		return process
	}
	as := func(service string) []string {
		return []string{
			"--history-address=" + history, "--nats.url=tls://" + ns.Addr().String(),
			"--nats.tls.ca-file=" + keys.Files(devkeys.NATS).CAFile, "--nats.nkey-seed-file=" + keys.Seed(service),
		}
	}
	run(launch.History, history, "--history.database=sqlite:"+filepath.Join(dir, "history.db"))
	f.delivery = run(launch.Delivery, address(), as("delivery")...)
	run(launch.Gateway, address(), append(as("gateway"), "--gateway.listen="+clients)...)
	f.served = &target{T: s.T, elsewhere: map[string]string{"gateway": clients}, secret: []byte(secret)}
	f.stolen = broker.Config{
		URL: "tls://" + ns.Addr().String(), NkeySeedFile: keys.Seed("gateway"), TLS: certs.Config{CAFile: keys.Files(devkeys.NATS).CAFile}, Partitions: 2,
	}
	return f
}

func usurp(s *target) {
	f := s.fortress()
	defer f.close()
	served := f.served
	served.honest = served.connect("ann")
	served.serves()
	group := served.honest.do("", &conversationv1.Body{Action: &conversationv1.Body_Create{Create: &conversationv1.Create{
		Kind: conversationv1.Kind_KIND_GROUP, Name: "ours", Members: []string{"bob"},
	}}}).GetConversationId()
	message := &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: "hello"}}}
	written := served.honest.do(group, message).GetSeq()
	require.NotZero(s, written)
	nc, err := broker.Connect(f.stolen, "runnel-gateway", slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(s, err)

	partition := conversation.Partition(ids.Conversation(group), f.stolen.Partitions)
	published := 0
	for _, sender := range usurpers {
		for _, body := range []*conversationv1.Body{
			{Action: &conversationv1.Body_Erase{Erase: &conversationv1.Erase{Seqs: []uint64{written}}}},
			{Action: &conversationv1.Body_Erase{Erase: &conversationv1.Erase{Sender: "ann"}}},
			remove("ann"), add("eve"), message,
			{Action: &conversationv1.Body_Rename{Rename: &conversationv1.Rename{Name: "theirs"}}},
			{Action: &conversationv1.Body_Delete{Delete: &conversationv1.Delete{Target: written}}},
		} {
			encoded, err := conversation.EncodeBody(body)
			require.NoError(s, err)
			now := time.Now()
			data, err := (&brokerv1.Command{
				ConversationId: group, Sender: sender, CommandId: uuid.Must(uuid.NewV7()).String(), Body: encoded, Salt: chain.NewSalt(),
				AdmittedMs: now.UnixMilli(), NotAfterMs: now.Add(2 * time.Minute).UnixMilli(), Level: 1,
			}).MarshalVT()
			require.NoError(s, err)
			require.NoError(s, nc.Publish(broker.ServerSubject(partition), data))
			require.NoError(s, nc.Flush())
			require.ErrorIs(s, nc.LastError(), nats.ErrPermissionViolation)
			_, err = nc.Request(broker.CommandSubject(partition), data, patience)
			require.NoError(s, err, "the stream has it")
			published++
		}
	}
	served.serves()
	require.Eventually(s, func() bool {
		outcomes, err := f.delivery.Metrics(s.Context())
		return err == nil && int(outcomes[`runnel_delivery_commands_total{outcome="dead_lettered"}`]) == published/len(usurpers) &&
			int(outcomes[`runnel_delivery_commands_total{outcome="invalid"}`]) == published-published/len(usurpers)
	}, patience, 50*time.Millisecond)
	answer, err := served.honest.ask(&clientv1.ClientFrame{Request: &clientv1.ClientFrame_Read{Read: &clientv1.Read{ConversationId: group}}})
	require.NoError(s, err)
	require.Len(s, answer.GetPage().GetEvents(), 2)
	require.Equal(s, "hello", answer.GetPage().GetEvents()[1].GetBody().GetMessage().GetText())
	served.honest.leave()
	nc.Close()
	s.during()
}
