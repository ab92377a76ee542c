package e2e_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/client"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/protocol"
	"github.com/runnelhq/runnel/services/e2e/positions"
	"github.com/runnelhq/runnel/services/standalone"
)

// device is the data that a program keeps for its client, and the calls that it received.
type device struct {
	positions.Kept

	mu       sync.Mutex
	seen     map[string]uint64 // the newest seq by conversation
	holes    []string
	detached map[string]uint64
	events   int
}

func newDevice() *device {
	return &device{seen: map[string]uint64{}, detached: map[string]uint64{}}
}

func (d *device) take(_ context.Context, event client.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	id := event.GetConversationId()
	if event.GetSeq() != d.seen[id]+1 {
		d.holes = append(d.holes, fmt.Sprintf("%s: %d after %d", id, event.GetSeq(), d.seen[id]))
	}
	d.seen[id] = event.GetSeq()
	d.events++
}

func (d *device) counts() (events, detached int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.events, len(d.detached)
}

// TestAUserWithMoreConversationsThanConnectNames: events from the time when the device was offline reach it once and in
// order, in every conversation, and it learns of every membership that ended.
func TestAUserWithMoreConversationsThanConnectNames(t *testing.T) {
	const conversations, ended = protocol.MaxResumePositions + 120, 60
	s := start(t, func(cfg *standalone.Config) {
		cfg.Gateway.CommandRatePerUser, cfg.Gateway.FrameRate = 1e6, 1e6
	})
	open := func(user string, codec frame.Codec, d *device) *client.Client {
		cfg := client.Config{
			URL: s.url(), DeviceID: user + "-1", Codec: codec, Start: clientv1.Start_START_FIRST,
			Token: func(context.Context) (string, error) { return token(t, user), nil },
		}
		if d != nil {
			cfg.Cursors, cfg.OnEvent = d, d.take
			cfg.OnDetached = func(gone *clientv1.Detached) {
				d.mu.Lock()
				defer d.mu.Unlock()
				d.detached[gone.GetConversationId()] = gone.GetLast()
			}
		}
		c, err := client.New(cfg)
		require.NoError(t, err)
		require.NoError(t, c.Start(t.Context()))
		t.Cleanup(func() { require.NoError(t, c.Close()) })
		require.NoError(t, c.Ready(t.Context()))
		return c
	}
	reaches := func(d *device, events, detached int) {
		require.EventuallyWithT(t, func(t *assert.CollectT) {
			gotEvents, gotDetached := d.counts()
			require.Equal(t, []int{events, detached}, []int{gotEvents, gotDetached})
		}, patience, 20*time.Millisecond)
	}
	ann, bob := open("ann", frame.Proto, nil), newDevice()
	// all sends the same request in many conversations at once and waits for the outcomes.
	all := func(ids []string, body *conversationv1.Body) []string {
		tickets := make([]*client.Ticket, len(ids))
		for i, id := range ids {
			ticket, err := ann.Enqueue(id, body)
			require.NoError(t, err)
			tickets[i] = ticket
		}
		for i, ticket := range tickets {
			outcome, err := ticket.Wait(t.Context())
			require.NoError(t, err)
			ids[i] = outcome.GetConversationId()
		}
		return ids
	}
	first := open("bob", frame.Proto, bob)
	ids := all(make([]string, conversations), group("bob"))
	reaches(bob, conversations, 0)
	require.NoError(t, first.Close())

	all(ids, text("while you were away"))
	all(ids[:ended], removeBob())
	second := open("bob", frame.JSON, bob)
	reaches(bob, 2*conversations+ended, ended)
	all(ids[ended:], text("live"))
	reaches(bob, 3*conversations, ended)
	require.NoError(t, second.Close())
	require.Empty(t, bob.holes)
	require.LessOrEqual(t, second.Stats().Connects, uint64(2))
}
