package client_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/client"
	"github.com/runnelhq/runnel/pkg/frame"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// The delivered and read positions were sent in one frame, which was lost with the connection.
func TestAReadThatWasLostWithItsDeliveryIsSaidAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, h := newGateway(), newHistory(3)
		c, _ := start(t, g, fromFirst)
		l, _ := g.accept(t, connected(h.info()))
		l.send(h.push(1), h.push(2), h.push(3))
		synctest.Wait()
		c.MarkRead(h.id, 3)
		ack := l.recvAck(t)
		require.Equal(t, uint64(3), ack[h.id].GetRead())
		l.cut() // the ack is lost: the server knows nothing
		l, _ = g.accept(t, connected(h.info()))
		ack = l.recvAck(t)
		require.Equal(t, uint64(3), ack[h.id].GetDelivered())
		require.Equal(t, uint64(3), ack[h.id].GetRead(), "the read position is sent again")
	})
}

// The user is removed and added again while callbacks are still queued.
func TestBeingAddedAgainWhileBehindGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, h := newGateway(), newHistory(8)
		gate := make(chan struct{})
		_, v := start(t, g, fromFirst, func(cfg *client.Config) {
			cfg.MaxEvents = 2
			on := cfg.OnEvent
			cfg.OnEvent = func(ctx context.Context, e client.Event) { <-gate; on(ctx, e) }
		})
		info := h.info()
		info.Head = 4
		l, _ := g.accept(t, connected(info))
		l.send(h.push(1), h.push(2), h.push(3), h.push(4), &clientv1.ServerFrame{Message: &clientv1.ServerFrame_Detached{Detached: &clientv1.Detached{ConversationId: h.id, Last: 4}}})
		again := h.info()
		again.JoinedSeq, again.Head = 6, 6
		l.send(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Attached{Attached: &clientv1.Attached{Conversation: again}}})
		l.send(hide(h, 5, 5), h.push(6))
		synctest.Wait()
		close(gate)
		for range 2 {
			synctest.Wait()
			if len(l.toServer) == 0 {
				break
			}
			f := l.recv(t)
			if f.GetRead() == nil {
				break
			}
			page := &clientv1.Page{Head: 6, Hidden: []*conversationv1.Range{{First: 5, Last: 5}}}
			for _, e := range h.events[:6] {
				if e.GetSeq() > f.GetRead().GetAfter() && e.GetSeq() != 5 {
					page.Events = append(page.Events, frame.ToClient(e))
				}
			}
			l.send(&clientv1.ServerFrame{Id: f.GetId(), Message: &clientv1.ServerFrame_Page{Page: page}})
		}
		synctest.Wait()
		l.send(h.push(7), h.push(8), h.beat())
		synctest.Wait()
		require.Equal(t, []uint64{1, 2, 3, 4, 6, 7, 8}, v.seqs(h.id))
	})
}
