package e2e_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/bus"
	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/pkg/telemetry"
	"github.com/runnelhq/runnel/services/delivery"
	"github.com/runnelhq/runnel/services/history"
)

// floor is the environment of delivery workers: a real broker and a real history service on SQLite, in this process.
type floor struct {
	t          *testing.T
	partitions int
	// maxBytes is the size of each partition's stream.
	maxBytes int64
	// file is the database.
	file      string
	nats      *server.Server
	history   historyv1.HistoryServiceClient
	submitter *broker.Submitter
	nc        *nats.Conn
}

func newFloor(t *testing.T) *floor {
	t.Helper()
	return newFloorOf(t, 4, 64<<20)
}

// newFloorOf makes a floor with this many partitions, whose streams have this many bytes.
func newFloorOf(t *testing.T, partitions int, maxBytes int64) *floor {
	t.Helper()
	f := &floor{t: t, partitions: partitions, maxBytes: maxBytes, file: filepath.Join(t.TempDir(), "history.db")}
	var err error
	f.nats, err = server.NewServer(&server.Options{
		ServerName: "floor", DontListen: true, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true,
	})
	require.NoError(t, err)
	f.nats.Start()
	t.Cleanup(func() { f.nats.Shutdown(); f.nats.WaitForShutdown() })
	require.True(t, f.nats.ReadyForConnections(patience))
	tel, err := telemetry.Start(t.Context(), "test", telemetry.Config{LogLevel: "warn", LogFormat: "text"}, t.Output())
	require.NoError(t, err)
	cfg := history.Config{Database: "sqlite:" + f.file, Connections: 4}
	store, err := history.Open(t.Context(), cfg, f.partitions, tel.Log)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	inproc := rpc.NewInproc(tel)
	historyv1.RegisterHistoryServiceServer(inproc, history.New(cfg, store, tel.Log, prometheus.NewRegistry()))
	f.history = historyv1.NewHistoryServiceClient(inproc)
	f.nc = f.connect()
	f.submitter, err = broker.NewSubmitter(f.nc, bus.OverNATS{Conn: f.nc}, f.partitions, "test", broker.SubmitterConfig{}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(f.submitter.Close)
	return f
}

func (f *floor) connect() *nats.Conn {
	f.t.Helper()
	nc, err := broker.Connect(broker.Config{URL: nats.DefaultURL}, "test", slog.New(slog.DiscardHandler), prometheus.NewRegistry(), nats.InProcessServer(f.nats))
	require.NoError(f.t, err)
	f.t.Cleanup(nc.Close)
	return nc
}

// hire starts a delivery worker and returns a function that stops it cleanly.
func (f *floor) hire() (stop func()) {
	f.t.Helper()
	worker, err := delivery.New(delivery.Config{FlushInterval: 10 * time.Millisecond}, delivery.Deps{
		NATS:    f.connect(),
		Broker:  broker.Config{Partitions: f.partitions, Replicas: 1, MaxBytes: f.maxBytes, MaxAge: time.Hour, DuplicateWindow: time.Minute},
		History: f.history,
	})
	require.NoError(f.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- worker.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(f.t, <-done)
	})
	f.t.Cleanup(stop)
	return stop
}

func (f *floor) send(ctx context.Context, sender, id, commandID string, body *conversationv1.Body) (*conversationv1.Outcome, error) {
	if body.GetCreate() != nil {
		id = string(conversation.GroupID(ids.User(sender), ids.Command(commandID)))
	}
	outcome, err := f.submitter.Do(ctx, &brokerv1.Command{
		ConversationId: id, Sender: sender, CommandId: commandID, Body: encoded(f.t, body), Salt: make([]byte, chain.SaltSize),
	}, nil)
	if err == nil && outcome.GetError() != nil {
		err = fmt.Errorf("refused: %v", outcome.GetError())
	}
	return outcome, err
}

// Workers come and go while many users send; every command is committed once, in each sender's order, and a repeat of any
// command gets its first outcome.
func TestWorkersComeAndGoOverSQLite(t *testing.T) {
	f := newFloor(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	stop := f.hire()
	const groups, messages = 12, 60
	type sent struct {
		sender, id, command string
		body                *conversationv1.Body
		seq                 uint64
	}
	var mu sync.Mutex
	var all []sent
	var senders errgroup.Group
	half := make(chan struct{})
	halfway := sync.OnceFunc(func() { close(half) })
	for g := range groups {
		senders.Go(func() error {
			user := fmt.Sprint("user-", g)
			var id string
			for i := range messages {
				command := uuid.Must(uuid.NewV7()).String()
				body := text(fmt.Sprint("message ", i))
				if i == 0 {
					body = group("bob")
				}
				outcome, err := f.send(ctx, user, id, command, body)
				if err != nil {
					return err
				}
				id = outcome.GetConversationId()
				if want := uint64(i + 1); outcome.GetSeq() != want {
					return fmt.Errorf("%s: seq %d instead of %d", id, outcome.GetSeq(), want)
				}
				mu.Lock()
				all = append(all, sent{user, id, command, body, outcome.GetSeq()})
				if len(all) == groups*messages/2 {
					halfway()
				}
				mu.Unlock()
			}
			return nil
		})
	}
	<-half
	f.hire()
	stop()
	f.hire()
	require.NoError(t, senders.Wait())

	byConversation := map[string][]sent{}
	for _, s := range all {
		byConversation[s.id] = append(byConversation[s.id], s)
	}
	require.Len(t, byConversation, groups)
	for id, want := range byConversation {
		page, err := f.history.Read(ctx, &historyv1.ReadRequest{ConversationId: id, Limit: 1000})
		require.NoError(t, err)
		require.Len(t, page.GetEvents(), messages)
		var v chain.Verifier
		for i, event := range page.GetEvents() {
			_, err := v.Next(event)
			require.NoError(t, err)
			require.Equal(t, want[i].command, event.GetCommandId())
		}
	}
	for _, s := range all[:20] { // I7
		outcome, err := f.send(ctx, s.sender, s.id, s.command, s.body)
		require.NoError(t, err)
		require.Equal(t, s.seq, outcome.GetSeq())
		require.True(t, outcome.GetRepeated())
	}
}

// An acknowledgement becomes a stored cursor, and then a receipt for all members.
func TestAcknowledgementsReachTheStore(t *testing.T) {
	f := newFloor(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	f.hire()
	created, err := f.send(ctx, "ann", "", uuid.Must(uuid.NewV7()).String(), group("bob"))
	require.NoError(t, err)
	id := ids.Conversation(created.GetConversationId())
	live := make(chan *nats.Msg, 64)
	sub, err := f.nc.ChanSubscribe(broker.LiveSubject(id), live)
	require.NoError(t, err)
	defer func() { require.NoError(t, sub.Unsubscribe()) }()
	_, err = f.send(ctx, "ann", string(id), uuid.Must(uuid.NewV7()).String(), text("hello"))
	require.NoError(t, err)
	acks, err := (&brokerv1.Acks{Acks: []*brokerv1.Ack{{ConversationId: string(id), UserId: "bob", DeliveredSeq: 2, ReadSeq: 1}}}).MarshalVT()
	require.NoError(t, err)
	require.NoError(t, f.nc.Publish(broker.AckSubject(conversation.Partition(id, f.partitions)), acks))
	for {
		var message brokerv1.Live
		select {
		case msg := <-live:
			require.NoError(t, message.UnmarshalVT(msg.Data))
		case <-ctx.Done():
			require.NoError(t, ctx.Err())
		}
		if steps := message.GetReceipt().GetDelivered(); len(steps) > 0 && steps[0].GetSeq() == 2 && steps[0].GetMembers() == 2 {
			break
		}
	}
	members, err := f.history.ListMembers(ctx, &historyv1.ListMembersRequest{ConversationId: string(id)})
	require.NoError(t, err)
	require.Len(t, members.GetMembers(), 2)
	ann, bob := members.GetMembers()[0].GetCursor(), members.GetMembers()[1].GetCursor()
	require.EqualValues(t, 2, ann.GetReadSeq(), "the author has read what they wrote")
	require.EqualValues(t, 2, bob.GetDeliveredSeq())
	require.EqualValues(t, 1, bob.GetReadSeq())
	require.NotZero(t, bob.GetDeliveredTimeMs())
}
