package client_test

import (
	"testing"
	"testing/synctest"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/client"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

func detachedAt(h *history, last uint64) *clientv1.ServerFrame {
	return &clientv1.ServerFrame{Message: &clientv1.ServerFrame_Detached{Detached: &clientv1.Detached{ConversationId: h.id, Last: last}}}
}

// ofBob returns a group that bob creates. create appends the event that creates the group; it may be called a second
// time.
func ofBob(t *testing.T) (h *history, create func()) {
	t.Helper()
	command := ids.Command(uuid.Must(uuid.NewV7()).String())
	h = newHistory(0)
	h.id = string(conversation.GroupID("bob", command))
	create = func() {
		_, refusal := h.apply("bob", string(command), &conversationv1.Body{Action: &conversationv1.Body_Create{Create: &conversationv1.Create{
			Kind: conversationv1.Kind_KIND_GROUP, Members: []string{"alice"},
		}}})
		require.Nil(t, refusal)
	}
	create()
	return h, create
}

// The server was restored to a state before the conversation existed, and bob's client created it again.
func TestAMembersCommandsAreSentAgainToAConversationThatWasCreatedAgain(t *testing.T) {
	for _, test := range []struct {
		name string
		// grown is the number of events that bob sends again before alice learns of the fork.
		grown  int
		listed bool
	}{
		{"attached", 0, false},
		{"attached when it is longer than before", 7, false},
		{"listed at the next connect", 0, true},
		{"listed when it is longer than before", 7, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGateway()
				h, create := ofBob(t)
				var f forks
				cursors := newMemory(map[string]client.Position{})
				c, _ := start(t, g, f.watch, func(cfg *client.Config) { cfg.Cursors = cursors })
				l, _ := g.accept(t, connected(h.info()))
				first := enqueue(t, c, h.id, "first")
				h.serve(t, l)
				second := enqueue(t, c, h.id, "second")
				h.serve(t, l)
				require.Equal(t, []string{"2", "3"}, f.told)
				l.cut()
				h.back(0)
				l, _ = g.accept(t, connected())
				l.send(detachedAt(h, 0))
				synctest.Wait()
				require.Empty(t, cursors.positions)
				_, known := c.Position(h.id)
				require.False(t, known)
				require.Empty(t, f.forks)

				create()
				h.grow(test.grown)
				if test.listed {
					l.cut()
					l, _ = g.accept(t, connected(h.info()))
				} else {
					l.send(attach(h.info()))
				}
				<-l.closed
				l, connect := g.accept(t, connected(h.info()))
				require.Equal(t, map[string]uint64{h.id: 0}, resumed(connect))
				require.Equal(t, []string{first.CommandID, second.CommandID}, h.serve(t, l))
				require.Len(t, f.forks, 1)
				require.Equal(t, uint64(3), f.forks[0].From)
				require.Zero(t, f.forks[0].To)
				require.Len(t, f.forks[0].Commands, 2)
				for _, ticket := range f.forks[0].Commands {
					_, err := ticket.Wait(t.Context())
					require.NoError(t, err)
				}
			})
		})
	}
}

// The log went back while the user was not a member; then the user was added again.
func TestAMembersCommandsAreSentAgainAfterBeingAddedToALogThatWentBack(t *testing.T) {
	for _, listed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			g := newGateway()
			h, _ := ofBob(t)
			var f forks
			c, _ := start(t, g, f.watch)
			l, _ := g.accept(t, connected(h.info()))
			first := enqueue(t, c, h.id, "first")
			h.serve(t, l)
			second := enqueue(t, c, h.id, "second")
			h.serve(t, l)
			l.send(detachedAt(h, 3))
			synctest.Wait()
			h.back(1)
			if listed {
				l.cut()
				l, _ = g.accept(t, connected(h.info()))
			} else {
				l.send(attach(h.info()))
			}
			_, _ = l.answerReads(t, h)
			l, _ = g.accept(t, connected(h.info()))
			require.Equal(t, []string{first.CommandID, second.CommandID}, h.serve(t, l))
			require.Len(t, f.forks, 1)
		})
	}
}

// A client that writes to a group directly after creating it may receive the outcome before the gateway pushes Attached.
// The head in Attached is then older than the outcome.
func TestAnOutcomeThatOvertakesItsConversationIsNoFork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		h, _ := ofBob(t)
		var f forks
		c, _ := start(t, g, f.watch)
		l, _ := g.accept(t, connected())
		info := h.info()
		ticket := enqueue(t, c, h.id, "early")
		_, refusal := h.apply("alice", ticket.CommandID, text("early"))
		require.Nil(t, refusal)
		l.send(commit(l.recv(t), 2), attach(info), h.push(1), h.push(2))
		require.Empty(t, h.serve(t, l))
		require.Empty(t, f.forks)
		require.Equal(t, []string{"1", "2"}, f.told)
		select {
		case <-l.closed:
			t.Error("the connection was ended")
		default:
		}
	})
}
