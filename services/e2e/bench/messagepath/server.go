package messagepath

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	deliveryv1 "github.com/runnelhq/runnel/proto/runnel/delivery/v1"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/settings"
	"github.com/runnelhq/runnel/pkg/telemetry"
	"github.com/runnelhq/runnel/services/e2e/bench"
	"github.com/runnelhq/runnel/services/e2e/bench/load"
	"github.com/runnelhq/runnel/services/standalone"
)

const (
	// secret signs the tokens of the clients.
	secret = "the secret of a benchmark that nobody else can reach"
	// patience limits the wait for one message, and setupPatience that for the start, the groups and the connections together.
	patience      = 30 * time.Second
	setupPatience = 5 * time.Minute
)

// server is standalone in this process, and groups of connected clients.
type server struct {
	stop    context.CancelFunc
	ended   chan error
	dir     string
	loop    *load.Loop
	size    int
	clients []*load.Client // those of a group side by side

	// message is what the present message still lacks: its outcome and an event for each member.
	message atomic.Int32
	whole   chan struct{} // receives when message becomes 0
	heads   []atomic.Uint64
	// delivered is the seq up to which the sender of a group knows that all members have its messages.
	delivered []atomic.Uint64
	receipts  atomic.Int64
}

// begin starts standalone with its data in a new directory, makes groups, and connects their members.
func begin(ctx context.Context, groups, size int) (_ *server, err error) {
	s := &server{
		ended: make(chan error, 1), size: size, whole: make(chan struct{}, 1), clients: make([]*load.Client, groups*size),
		heads: make([]atomic.Uint64, groups), delivered: make([]atomic.Uint64, groups),
	}
	if s.dir, err = os.MkdirTemp("", "runnel-bench-path-"); err != nil {
		return nil, fmt.Errorf("make a directory for data: %w", err)
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	runnel, err := s.start(ctx)
	if err != nil {
		stop()
		return nil, errors.Join(err, os.RemoveAll(s.dir))
	}
	go func() { s.ended <- runnel.Run(running) }()
	defer func() {
		if err != nil {
			err = errors.Join(err, s.end())
		}
	}()
	waiting, cancel := context.WithTimeout(ctx, setupPatience)
	defer cancel()
	if err := runnel.WaitReady(waiting); err != nil {
		return nil, fmt.Errorf("wait until standalone is ready: %w", err)
	}
	if err := s.gather(waiting, runnel.RPCAddr(), groups); err != nil {
		return nil, err
	}
	if s.loop, err = load.NewLoop(s); err != nil {
		return nil, err
	}
	return s, s.connect(waiting, runnel.Addr().String())
}

// start creates standalone with the default settings; only limits are raised.
func (s *server) start(ctx context.Context) (*standalone.Standalone, error) {
	var cfg standalone.Config
	parser, err := settings.New("runnel", "", &cfg)
	if err != nil {
		return nil, fmt.Errorf("read the default settings: %w", err)
	}
	if _, err := parser.Parse(bench.Limits()); err != nil {
		return nil, fmt.Errorf("read the default settings: %w", err)
	}
	cfg.DataDir, cfg.Auth.HMACSecret = s.dir, secret
	cfg.Gateway.Listen, cfg.RPC.Listen, cfg.Admin.Listen = "127.0.0.1:0", "127.0.0.1:0", ""
	return standalone.New(ctx, cfg, telemetry.Discard())
}

// end disconnects the clients, stops standalone and removes its data.
func (s *server) end() error {
	if s.loop != nil {
		s.loop.Close()
	}
	s.stop()
	return errors.Join(<-s.ended, os.RemoveAll(s.dir))
}

// gather makes the groups and their clients.
func (s *server) gather(ctx context.Context, address string, groups int) error {
	calls, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("reach standalone: %w", err)
	}
	defer calls.Close()
	delivery := deliveryv1.NewDeliveryServiceClient(calls)
	making, ctx := errgroup.WithContext(ctx)
	making.SetLimit(16)
	for g := range groups {
		making.Go(func() error {
			users := make([]string, s.size)
			for i := range users {
				users[i] = fmt.Sprintf("u%d", g*s.size+i)
			}
			answer, err := delivery.Submit(ctx, &deliveryv1.SubmitRequest{
				Sender: users[0], CommandId: uuid.Must(uuid.NewV7()).String(),
				Body: &conversationv1.Body{Action: &conversationv1.Body_Create{Create: &conversationv1.Create{
					Kind: conversationv1.Kind_KIND_GROUP, Name: fmt.Sprintf("group %d", g), Members: users[1:],
				}}},
			})
			if err != nil {
				return fmt.Errorf("create group %d: %w", g, err)
			}
			if refused := answer.GetOutcome().GetError(); refused != nil {
				return fmt.Errorf("create group %d: refused: %s", g, refused.GetMessage())
			}
			for i, user := range users {
				token, err := auth.Mint([]byte(secret), ids.User(user), 24*time.Hour, time.Now(), "", "")
				if err != nil {
					return err
				}
				client := load.NewClient(user, token, answer.GetOutcome().GetConversationId(), true)
				client.Index = g*s.size + i
				s.clients[client.Index] = client
			}
			return nil
		})
	}
	return making.Wait()
}

// connect connects all clients, a few at a time.
func (s *server) connect(ctx context.Context, address string) error {
	const atOnce = 16
	for some := range slices.Chunk(s.clients, atOnce) {
		s.message.Store(int32(len(some)))
		for _, client := range some {
			s.loop.Connect(client, address)
		}
		if err := s.await(ctx); err != nil {
			return fmt.Errorf("connect: %w", err)
		}
	}
	return nil
}

// send sends a message from a member of a group, and waits until its sender has the outcome and all members have the event.
func (s *server) send(ctx context.Context, group, member int) error {
	s.message.Store(int32(s.size + 1))
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := s.clients[group*s.size+member].Submit(load.Now()); err != nil {
		return err
	}
	return s.await(ctx)
}

func (s *server) await(ctx context.Context) error {
	select {
	case <-s.whole:
		return s.loop.Failures()
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("something did not arrive: %w", ctx.Err()), s.loop.Failures())
	}
}

// settle waits until every message is known to be delivered to all members.
func (s *server) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for g := range s.heads {
		for s.delivered[g].Load() < s.heads[g].Load() {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return fmt.Errorf("group %d: delivered up to %d of %d: %w", g, s.delivered[g].Load(), s.heads[g].Load(), ctx.Err())
			}
		}
	}
	return s.loop.Failures()
}

func (s *server) arrived() {
	if s.message.Add(-1) == 0 {
		s.whole <- struct{}{}
	}
}

// Connected implements load.Handler.
func (s *server) Connected(*load.Client, int64) { s.arrived() }

// Event implements load.Handler.
func (s *server) Event(_ *load.Client, _ uint64, event []byte, _ int64) {
	if load.SentAt(event) > 0 {
		s.arrived()
	}
}

// Outcome implements load.Handler.
func (s *server) Outcome(c *load.Client, _ int64, seq uint64, _ int64) {
	s.heads[c.Index/s.size].Store(seq)
	s.arrived()
}

// Receipt implements load.ReceiptHandler.
func (s *server) Receipt(c *load.Client, delivered uint64, members int) {
	s.receipts.Add(1)
	if head := &s.delivered[c.Index/s.size]; members == s.size && delivered > head.Load() {
		head.Store(delivered)
	}
}

// Closed implements load.Handler.
func (s *server) Closed(c *load.Client, reason string, _ int64) error {
	return fmt.Errorf("the connection of %s was lost: %s", c.User, strings.TrimSpace(reason))
}
