package client_test

import (
	"bytes"
	"log/slog"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/client"
	"github.com/runnelhq/runnel/pkg/frame"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// If a server reports a seq that no log can reach, the client ends the connection and ignores the whole report. When the
// server's reports are valid again, the client continues from its position.
func TestASeqThatNoLogCanReachEndsTheConnection(t *testing.T) {
	const far = 1 << 62
	lies := map[string]func(t *testing.T, c *client.Client, l *link, h *history){
		"event": func(_ *testing.T, _ *client.Client, l *link, h *history) {
			lie := frame.ToClient(h.events[1])
			lie.Seq = far
			l.send(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Event{Event: lie}})
		},
		"hidden last": func(_ *testing.T, _ *client.Client, l *link, h *history) { l.send(hide(h, 2, math.MaxUint64)) },
		"hidden first": func(_ *testing.T, _ *client.Client, l *link, h *history) {
			l.send(hide(h, far, 3))
		},
		"detached": func(_ *testing.T, _ *client.Client, l *link, h *history) {
			l.send(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Detached{Detached: &clientv1.Detached{ConversationId: h.id, Last: far}}})
		},
		"forked": func(_ *testing.T, _ *client.Client, l *link, h *history) {
			l.send(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Forked{Forked: &clientv1.Forked{ConversationId: h.id, Head: far, Seq: 1}}})
		},
		"heartbeat": func(_ *testing.T, _ *client.Client, l *link, h *history) {
			lie := h.beat()
			lie.GetHeartbeat().Heads[0].Seq = far
			l.send(lie)
		},
		"attached head": func(_ *testing.T, _ *client.Client, l *link, h *history) {
			info := h.info()
			info.Head = far
			l.send(attach(info))
		},
		"attached joined": func(_ *testing.T, _ *client.Client, l *link, _ *history) {
			l.send(attach(&clientv1.Conversation{ConversationId: "other", Head: 1, JoinedSeq: far}))
		},
		"attached cursor": func(_ *testing.T, _ *client.Client, l *link, _ *history) {
			l.send(attach(&clientv1.Conversation{ConversationId: "other", Head: 1, JoinedSeq: 1, Cursor: &conversationv1.Cursor{DeliveredSeq: far}}))
		},
		"outcome": func(t *testing.T, c *client.Client, l *link, h *history) {
			t.Helper()
			ticket := enqueue(t, c, h.id, "hello")
			l.send(commit(l.recv(t), far))
			synctest.Wait()
			select {
			case <-ticket.Done():
				t.Error("the outcome was believed")
			default:
			}
		},
		"page head":   lyingPage(func(page *clientv1.Page) { page.Head = far }),
		"page event":  lyingPage(func(page *clientv1.Page) { page.Events[0].Seq = far }),
		"page hidden": lyingPage(func(page *clientv1.Page) { page.Hidden = []*conversationv1.Range{{First: 2, Last: far}} }),
	}
	for name, lie := range lies {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, h := newGateway(), newHistory(3)
				cursors := newMemory(map[string]client.Position{})
				c, v := start(t, g, fromFirst, func(cfg *client.Config) { cfg.Cursors = cursors })
				l, _ := g.accept(t, connected(h.info()))
				l.send(h.push(1))
				synctest.Wait()
				lied := time.Now()
				lie(t, c, l, h)
				<-l.closed
				l, connect := g.accept(t, connected(h.info()))
				require.Equal(t, 200*time.Millisecond, time.Since(lied), "it backs off")
				require.Equal(t, map[string]uint64{h.id: 1}, resumed(connect))
				l.send(h.push(2), h.push(3))
				synctest.Wait()
				require.Equal(t, upTo(1, 3), v.seqs(h.id))
				require.Equal(t, map[string]client.Position{h.id: {Seq: 3, Hash: h.events[2].GetHash()}}, cursors.positions)
			})
		})
	}
}

// lyingPage makes a gap, and answers the client's read with an invalid page.
func lyingPage(lie func(*clientv1.Page)) func(*testing.T, *client.Client, *link, *history) {
	return func(t *testing.T, _ *client.Client, l *link, h *history) {
		t.Helper()
		l.send(h.push(3))
		page := h.page(l.recv(t))
		lie(page.GetPage())
		l.send(page)
	}
}

func TestAListOfConversationsThatNoLogCanReachEndsTheConnection(t *testing.T) {
	for name, lie := range map[string]*clientv1.Conversation{
		"head":      {Head: 1 << 62, JoinedSeq: 1},
		"joined":    {Head: 3, JoinedSeq: 1 << 62},
		"delivered": {Head: 3, JoinedSeq: 1, Cursor: &conversationv1.Cursor{DeliveredSeq: 1 << 62}},
		"read":      {Head: 3, JoinedSeq: 1, Cursor: &conversationv1.Cursor{ReadSeq: 1 << 62}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, h := newGateway(), newHistory(3)
				cursors := newMemory(map[string]client.Position{})
				c, _ := start(t, g, func(cfg *client.Config) {
					cfg.Cursors, cfg.Start = cursors, clientv1.Start_START_DELIVERED
				})
				lie.ConversationId = h.id
				l, _ := g.accept(t, connected(lie))
				<-l.closed
				require.NotEqual(t, client.Connected, c.State())
				require.Empty(t, cursors.positions)
				// Conversations that do not fit into Connected are requested as a list.
				more := connected(&clientv1.Conversation{ConversationId: "a", JoinedSeq: 1})
				more.More = true
				l, _ = g.accept(t, more)
				list := l.recv(t)
				l.send(&clientv1.ServerFrame{Id: list.GetId(), Message: &clientv1.ServerFrame_Conversations{
					Conversations: &clientv1.Conversations{Conversations: []*clientv1.Conversation{lie}},
				}})
				<-l.closed
				_, connect := g.accept(t, connected(h.info()))
				require.Equal(t, map[string]uint64{"a": 0}, resumed(connect))
				synctest.Wait()
				seq, known := c.Position(h.id)
				require.True(t, known)
				require.Zero(t, seq)
			})
		})
	}
}

func TestASavedPositionThatNoLogCanReachIsLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, h := newGateway(), newHistory(3)
		cursors := newMemory(map[string]client.Position{h.id: {Seq: 1 << 62}, "other": {Seq: 1<<62 - 1}})
		var log bytes.Buffer
		_, v := start(t, g, fromFirst, func(cfg *client.Config) {
			cfg.Cursors, cfg.Log = cursors, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
		})
		l, connect := g.accept(t, connected(h.info()))
		require.Equal(t, map[string]uint64{"other": 1<<62 - 1}, resumed(connect))
		l.send(h.push(1), h.push(2), h.push(3))
		l.silent(t)
		require.Equal(t, upTo(1, 3), v.seqs(h.id))
		require.Equal(t, uint64(3), cursors.positions[h.id].Seq)
		require.Contains(t, log.String(), h.id)
	})
}
