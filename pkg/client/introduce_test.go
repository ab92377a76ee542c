package client_test

import (
	"bytes"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/client"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/protocol"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
)

func TestMoreConversationsThanAConnectFrameHolds(t *testing.T) {
	for _, codec := range []frame.Codec{frame.Proto, frame.JSON} {
		synctest.Test(t, func(t *testing.T) {
			g, h, joined := newGateway(), newHistory(9), newHistory(4)
			positions := map[string]client.Position{}
			hash := bytes.Repeat([]byte{0xff}, chain.Size)
			for range 3000 {
				positions[newHistory(0).id] = client.Position{Seq: 1 << 40, Hash: hash}
			}
			c, v := start(t, g, func(cfg *client.Config) {
				cfg.Codec, cfg.Start, cfg.Cursors = codec, clientv1.Start_START_FIRST, newMemory(positions)
			})
			l := <-g.links
			connect := l.recv(t)
			named := resumed(connect.GetConnect())
			require.Len(t, named, protocol.MaxResumePositions, "the room is used")
			require.Equal(t, clientv1.Start_START_HEAD, connect.GetConnect().GetStart())
			for id := range positions {
				if _, isNamed := named[id]; !isNamed {
					h.id = id
				}
			}
			require.NotEmpty(t, positions[h.id])
			// One conversation was not named, and one is new. The gateway pushes neither from the position that the
			// client needs.
			info := h.info()
			info.Head = 1<<40 + 3
			l.send(&clientv1.ServerFrame{Id: 1, Message: &clientv1.ServerFrame_Connected{Connected: connected(info, joined.info())}})
			first, second := l.recv(t), l.recv(t)
			require.Equal(t, h.id, first.GetRead().GetConversationId())
			require.Equal(t, uint64(1<<40), first.GetRead().GetAfter())
			l.send(joined.page(second))
			l.silent(t)
			require.Equal(t, upTo(1, 4), v.seqs(joined.id))
			require.NoError(t, c.Close())
		})
	}
}

// TestAMembershipThatEndedIsNotedThoughConnectHadNoRoom: the user has left some conversations. The first connect frame
// had no room for most of them, and named one. The gateway lists only conversations that the user is in. It reports the
// end of the others only if connect named them.
func TestAMembershipThatEndedIsNotedThoughConnectHadNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		logs, positions := map[string]*history{}, map[string]client.Position{}
		for range protocol.MaxResumePositions + 150 {
			h := newHistory(2)
			logs[h.id], positions[h.id] = h, client.Position{Seq: 2, Hash: h.events[1].GetHash()}
		}
		detached := map[string]uint64{}
		c, v := start(t, g, func(cfg *client.Config) {
			cfg.Cursors = newMemory(positions)
			cfg.OnDetached = func(d *clientv1.Detached) { detached[d.GetConversationId()] = d.GetLast() }
		})
		first := <-g.links
		connect := first.recv(t)
		named := resumed(connect.GetConnect())
		require.Len(t, named, protocol.MaxResumePositions)
		var passedOver []*history
		var left *history
		var still []*clientv1.Conversation
		for id, h := range logs {
			_, isNamed := named[id]
			switch {
			case !isNamed && len(passedOver) < 50:
				h.grow(1) // the event that ends the membership
				passedOver = append(passedOver, h)
			case isNamed && left == nil:
				left = h
			default:
				still = append(still, h.info())
			}
		}
		first.send(&clientv1.ServerFrame{Id: connect.GetId(), Message: &clientv1.ServerFrame_Connected{Connected: connected(still...)}})
		synctest.Wait()
		require.Empty(t, g.links, "it waits for what the gateway still tells of those that were named")
		first.send(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Detached{Detached: &clientv1.Detached{ConversationId: left.id, Last: 2}}})

		second, again := g.accept(t, connected(still...))
		named = resumed(again)
		for _, h := range passedOver {
			require.Equal(t, uint64(2), named[h.id], "now it is named")
			second.send(h.push(3), &clientv1.ServerFrame{Message: &clientv1.ServerFrame_Detached{Detached: &clientv1.Detached{ConversationId: h.id, Last: 3}}})
		}
		synctest.Wait()
		require.Empty(t, g.links, "one more connection is enough")
		for _, h := range passedOver {
			require.Equal(t, upTo(3, 3), v.seqs(h.id))
			require.Equal(t, uint64(3), detached[h.id])
		}
		require.Len(t, detached, len(passedOver)+1)
		require.NoError(t, c.Close())
	})
}
