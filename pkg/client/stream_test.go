package client_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/client"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

func fromFirst(cfg *client.Config) { cfg.Start = clientv1.Start_START_FIRST }

func hide(h *history, first, last uint64) *clientv1.ServerFrame {
	return &clientv1.ServerFrame{Message: &clientv1.ServerFrame_Hidden{Hidden: &clientv1.Hidden{ConversationId: h.id, First: first, Last: last}}}
}

func resumed(connect *clientv1.Connect) map[string]uint64 {
	positions := map[string]uint64{}
	for _, position := range connect.GetResume() {
		positions[position.GetConversationId()] = position.GetSeq()
	}
	return positions
}

func TestEventsComeOnceAndInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, h := newGateway(), newHistory(10)
		c, v := start(t, g, fromFirst)
		l, _ := g.accept(t, connected(h.info()))
		l.send(h.push(1), h.push(2), h.push(2), h.push(1), h.push(3))
		l.cut()
		l, connect := g.accept(t, connected(h.info()))
		require.Equal(t, map[string]uint64{h.id: 3}, resumed(connect))
		l.send(h.push(2), h.push(3), h.push(4))
		l.silent(t)
		require.Equal(t, upTo(1, 4), v.seqs(h.id))
		require.Equal(t, uint64(4), c.Stats().RepeatsDropped)
		seq, known := c.Position(h.id)
		require.True(t, known)
		require.Equal(t, uint64(4), seq)
	})
}

func TestAGapIsFilledBeforeWhatComesAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, h := newGateway(), newHistory(8)
		c, v := start(t, g, fromFirst)
		l, _ := g.accept(t, connected(h.info()))
		l.send(h.push(1), h.push(5), h.push(6))
		read := l.recv(t)
		require.Equal(t, uint64(1), read.GetRead().GetAfter())
		l.send(h.push(7))
		l.silent(t)
		require.Equal(t, upTo(1, 1), v.seqs(h.id))
		// The page ends within the gap. The client requests the rest, except for events that arrived meanwhile.
		page := h.page(read)
		page.GetPage().Events, page.GetPage().More = page.GetPage().GetEvents()[:2], true
		l.send(page)
		read = l.recv(t)
		require.Equal(t, uint64(3), read.GetRead().GetAfter())
		page = h.page(read)
		page.GetPage().Events, page.GetPage().More = page.GetPage().GetEvents()[:1], true
		l.send(page)
		l.silent(t)
		require.Equal(t, upTo(1, 7), v.seqs(h.id))
		l.send(h.push(8))
		l.silent(t)
		require.Equal(t, upTo(1, 8), v.seqs(h.id))
		require.Equal(t, uint64(1), c.Stats().GapsSeen)
		require.Equal(t, uint64(2), c.Stats().PagesRead)
	})
}

func TestAHeartbeatShowsTheLossOfTheLastEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, h := newGateway(), newHistory(2)
		_, v := start(t, g)
		l, _ := g.accept(t, connected(h.info()))
		h.grow(1)
		l.send(h.beat())
		l.send(h.page(l.recv(t)))
		l.silentButPong(t)
		require.Equal(t, upTo(3, 3), v.seqs(h.id))
	})
}

// silentButPong requires that the client sends only pongs and acknowledgements.
func (l *link) silentButPong(t *testing.T) {
	t.Helper()
	synctest.Wait()
	for len(l.pending)+len(l.toServer) > 0 {
		f, err := l.next()
		require.NoError(t, err)
		require.True(t, f.GetPong() != nil || f.GetAck() != nil, "unexpected %T", f.GetRequest())
	}
}

func TestABacklogThatIsStillComingIsNotReadBesides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, h := newGateway(), newHistory(9)
		_, v := start(t, g, fromFirst)
		l, _ := g.accept(t, connected(h.info()))
		l.send(h.push(1), h.beat())
		l.send(h.push(2), h.beat())
		l.silentButPong(t)
		// When no more of the backlog arrives, the client requests the rest.
		l.send(h.beat())
		l.send(h.page(l.recv(t)))
		l.silentButPong(t)
		require.Equal(t, upTo(1, 9), v.seqs(h.id))
	})
}

func TestAReadThatBringsNothingIsRepeatedAndThenBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, h := newGateway(), newHistory(3)
		_, v := start(t, g, fromFirst)
		l, _ := g.accept(t, connected(h.info()))
		l.send(h.push(1), h.push(3))
		empty := func() {
			f := l.recv(t)
			l.send(&clientv1.ServerFrame{Id: f.GetId(), Message: &clientv1.ServerFrame_Page{Page: &clientv1.Page{Head: 3}}})
		}
		for range 6 {
			empty()
		}
		time.Sleep(time.Minute)
		l.silentButPong(t)
		require.Equal(t, upTo(1, 1), v.seqs(h.id))
		// A new head resets the count of empty pages.
		l.send(h.beat())
		empty()
		l.send(h.page(l.recv(t)))
		l.silentButPong(t)
		require.Equal(t, upTo(1, 3), v.seqs(h.id))
	})
}

func TestHiddenStretches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, h := newGateway(), newHistory(20)
		var hidden []string
		_, v := start(t, g, fromFirst, func(cfg *client.Config) {
			cfg.OnHidden = func(h *clientv1.Hidden) { hidden = append(hidden, fmt.Sprint(h.GetFirst(), "-", h.GetLast())) }
		})
		l, _ := g.accept(t, connected(h.info()))
		l.send(h.push(1), hide(h, 2, 4), hide(h, 2, 4), h.push(5))
		l.silent(t)
		require.Equal(t, []uint64{1, 5}, v.seqs(h.id))
		// One hidden stretch begins before the last event. The other is beyond a gap, so it is read together with the
		// events in the gap.
		l.send(hide(h, 4, 7), h.push(8), hide(h, 12, 13))
		f := l.recv(t)
		require.Equal(t, uint64(8), f.GetRead().GetAfter())
		l.send(&clientv1.ServerFrame{Id: f.GetId(), Message: &clientv1.ServerFrame_Page{Page: &clientv1.Page{
			Events: sent(h.events[8], h.events[10], h.events[13]),
			Hidden: []*conversationv1.Range{{First: 10, Last: 10}, {First: 12, Last: 13}},
		}}})
		l.silent(t)
		require.Equal(t, []uint64{1, 5, 8, 9, 11, 14}, v.seqs(h.id))
		require.Equal(t, []string{"2-4", "6-7", "10-10", "12-13"}, hidden)
	})
}

// tampered is the push of an event whose content was changed.
func tampered(event *clientv1.Event) *clientv1.ServerFrame {
	event = proto.CloneOf(event)
	event.GetBody().GetMessage().Text = "forged"
	event.BodyBytes, _ = conversation.EncodeBody(event.GetBody())
	return &clientv1.ServerFrame{Message: &clientv1.ServerFrame_Event{Event: event}}
}

func TestAnEventThatDoesNotVerifyIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, h := newGateway(), newHistory(5)
		c, v := start(t, g, fromFirst)
		l, _ := g.accept(t, connected(h.info()))
		l.send(h.push(1), tampered(frame.ToClient(h.events[1])), h.push(3))
		l.send(h.page(l.recv(t)))
		l.silent(t)
		require.Equal(t, upTo(1, 5), v.seqs(h.id))
		require.Empty(t, v.broken)
		require.Equal(t, uint64(1), c.Stats().ChainBreaks)
	})
}

func TestAConversationThatContradictsItselfTwiceStops(t *testing.T) {
	for name, spoil := range map[string]func(page *clientv1.Page){
		"changed": func(page *clientv1.Page) { page.Events[0] = tampered(page.GetEvents()[0]).GetEvent() },
		"dropped": func(page *clientv1.Page) { page.Events = page.GetEvents()[1:] },
		"swapped": func(page *clientv1.Page) {
			page.Events[0], page.Events[1] = proto.CloneOf(page.GetEvents()[1]), proto.CloneOf(page.GetEvents()[0])
			page.Events[0].Seq, page.Events[1].Seq = 2, 3
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, h, other := newGateway(), newHistory(5), newHistory(2)
				c, v := start(t, g, fromFirst)
				l, _ := g.accept(t, connected(h.info(), other.info()))
				l.send(h.push(1), h.push(4))
				for range 2 {
					page := h.page(l.recv(t))
					spoil(page.GetPage())
					l.send(page)
				}
				// The client reads history to check for a fork; there is none.
				f := l.recv(t)
				require.Zero(t, f.GetRead().GetAfter())
				l.send(h.page(f))
				l.send(h.push(2), h.push(5), h.beat(), other.push(1), other.push(2))
				l.silentButPong(t)
				require.Equal(t, upTo(1, 1), v.seqs(h.id))
				require.Equal(t, upTo(1, 2), v.seqs(other.id), "other conversations continue")
				require.Len(t, v.broken, 1)
				var broken *chain.Broken
				require.ErrorAs(t, v.broken[0], &broken)
				require.Equal(t, ids.Conversation(h.id), broken.ConversationID)
				require.Equal(t, uint64(2), c.Stats().ChainBreaks)
			})
		})
	}
}

func TestWhereConversationsBegin(t *testing.T) {
	for start, want := range map[clientv1.Start]uint64{
		clientv1.Start_START_UNSPECIFIED: 10, clientv1.Start_START_HEAD: 10,
		clientv1.Start_START_DELIVERED: 7, clientv1.Start_START_FIRST: 3,
	} {
		synctest.Test(t, func(t *testing.T) {
			g, h := newGateway(), newHistory(10)
			info := h.info()
			info.JoinedSeq, info.Cursor = 4, &conversationv1.Cursor{DeliveredSeq: 7}
			c, _ := startWith(t, g, start)
			_, _ = g.accept(t, connected(info))
			require.NoError(t, c.Ready(t.Context()))
			synctest.Wait()
			seq, _ := c.Position(h.id)
			require.Equal(t, want, seq, start)
		})
	}
}

func startWith(t *testing.T, g *gateway, from clientv1.Start) (*client.Client, *view) {
	t.Helper()
	return start(t, g, func(cfg *client.Config) { cfg.Start = from })
}

func attach(info *clientv1.Conversation) *clientv1.ServerFrame {
	return &clientv1.ServerFrame{Message: &clientv1.ServerFrame_Attached{Attached: &clientv1.Attached{Conversation: info}}}
}

func TestAConversationThatIsJoinedBeginsWithTheJoining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, live, away := newGateway(), newHistory(6), newHistory(6)
		var attached []string
		_, v := start(t, g, func(cfg *client.Config) {
			cfg.OnAttached = func(info *clientv1.Conversation) { attached = append(attached, info.GetConversationId()) }
		})
		l, connect := g.accept(t, connected())
		require.Equal(t, clientv1.Start_START_HEAD, connect.GetStart())
		info := live.info()
		info.JoinedSeq = 5
		l.send(attach(info), live.push(5), live.push(6))
		l.silent(t)
		require.Equal(t, upTo(5, 6), v.seqs(live.id))
		l.cut()
		// A conversation joined while the client was offline does not begin at its head either.
		info = away.info()
		info.JoinedSeq = 4
		l, connect = g.accept(t, connected(live.info(), info))
		require.Equal(t, clientv1.Start_START_FIRST, connect.GetStart())
		l.send(away.push(4), away.push(5))
		l.silent(t)
		require.Equal(t, upTo(4, 5), v.seqs(away.id))
		require.Equal(t, []string{live.id, away.id}, attached)
	})
}

func TestConversationsBeyondTheFirstPageAreListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, first, rest, joined := newGateway(), newHistory(2), newHistory(2), newHistory(2)
		c, v := start(t, g)
		l, _ := g.accept(t, &clientv1.Connected{Conversations: []*clientv1.Conversation{first.info()}, More: true})
		f := l.recv(t)
		require.Equal(t, first.id, f.GetListConversations().GetAfter())
		// The event is pushed before the list is answered. It is included in the head in the list, but not in the head at
		// connect.
		rest.grow(1)
		l.send(rest.push(3))
		l.send(&clientv1.ServerFrame{Id: f.GetId(), Message: &clientv1.ServerFrame_Conversations{Conversations: &clientv1.Conversations{
			Conversations: []*clientv1.Conversation{rest.info()},
		}}})
		l.send(rest.page(l.recv(t)))
		rest.grow(1)
		l.send(rest.push(4), attach(joined.info()), joined.push(1), joined.push(2))
		l.silent(t)
		require.Equal(t, upTo(3, 4), v.seqs(rest.id))
		require.Equal(t, upTo(1, 2), v.seqs(joined.id))
		require.Equal(t, uint64(1), c.Stats().StraysDropped)
	})
}

func TestAListThatIsRefusedIsAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, first, second, third := newGateway(), newHistory(2), newHistory(2), newHistory(2)
		c, v := start(t, g, fromFirst)
		l, _ := g.accept(t, &clientv1.Connected{Conversations: []*clientv1.Conversation{first.info()}, More: true})
		page := func(f *clientv1.ClientFrame, h *history, more bool) {
			l.send(&clientv1.ServerFrame{Id: f.GetId(), Message: &clientv1.ServerFrame_Conversations{Conversations: &clientv1.Conversations{
				Conversations: []*clientv1.Conversation{h.info()}, More: more,
			}}})
		}
		// The gateway refuses permanently, or sends an answer of the wrong type.
		f := l.recv(t)
		for _, wait := range []time.Duration{200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond} {
			refused := time.Now()
			if wait == 400*time.Millisecond {
				l.send(&clientv1.ServerFrame{Id: f.GetId(), Message: &clientv1.ServerFrame_Refreshed{Refreshed: &clientv1.Refreshed{}}})
			} else {
				l.send(refuse(f.GetId(), conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN))
			}
			f = nextList(t, l)
			require.Equal(t, wait, time.Since(refused))
			require.Equal(t, first.id, f.GetListConversations().GetAfter())
		}
		page(f, second, true)
		f = nextList(t, l)
		require.Equal(t, second.id, f.GetListConversations().GetAfter())
		refused := time.Now()
		l.send(refuse(f.GetId(), conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN))
		f = nextList(t, l)
		require.Equal(t, 200*time.Millisecond, time.Since(refused), "what went well makes the waits small again")
		require.Equal(t, second.id, f.GetListConversations().GetAfter(), "it goes on where it was")
		page(f, third, false)
		synctest.Wait()
		_, known := c.Position(third.id)
		require.True(t, known)

		// When the connection ends, the client stops requesting the list.
		l.cut()
		l, _ = g.accept(t, &clientv1.Connected{Conversations: []*clientv1.Conversation{first.info()}, More: true})
		l.send(refuse(nextList(t, l).GetId(), conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN))
		synctest.Wait()
		l.cut()
		l, _ = g.accept(t, connected(first.info(), second.info(), third.info()))
		l.send(first.push(1), first.push(2))
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, upTo(1, 2), v.seqs(first.id))
		for len(l.toServer) > 0 || len(l.pending) > 0 {
			f, err := l.next()
			require.NoError(t, err)
			require.Nil(t, f.GetListConversations())
		}
	})
}

// nextList returns the next request for a list; reads are skipped.
func nextList(t *testing.T, l *link) *clientv1.ClientFrame {
	t.Helper()
	for {
		if f := l.recv(t); f.GetListConversations() != nil {
			return f
		}
	}
}

func TestAMembershipThatEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, h, unknown := newGateway(), newHistory(5), newHistory(1)
		cursors := newMemory(map[string]client.Position{unknown.id: {Seq: 1}})
		var detached []string
		c, v := start(t, g, fromFirst, func(cfg *client.Config) {
			cfg.Cursors = cursors
			cfg.OnDetached = func(d *clientv1.Detached) {
				detached = append(detached, fmt.Sprint(d.GetConversationId(), d.GetLast()))
			}
		})
		l, _ := g.accept(t, &clientv1.Connected{Conversations: []*clientv1.Conversation{h.info()}})
		l.send(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Detached{Detached: &clientv1.Detached{ConversationId: unknown.id}}})
		l.send(h.push(1), h.push(2), &clientv1.ServerFrame{Message: &clientv1.ServerFrame_Detached{Detached: &clientv1.Detached{ConversationId: h.id, Last: 4}}})
		// The last events were lost; they are delivered before the end of the membership.
		page := h.page(l.recv(t))
		page.GetPage().Events = page.GetPage().GetEvents()[:2]
		l.send(page)
		l.send(h.push(4), h.push(5))
		l.silent(t)
		require.Equal(t, upTo(1, 4), v.seqs(h.id))
		require.Equal(t, []string{unknown.id + "0", h.id + "4"}, detached)
		require.Empty(t, cursors.positions)
		_, known := c.Position(h.id)
		require.False(t, known)
	})
}

// memory stores positions.
type memory struct {
	mu        sync.Mutex
	positions map[string]client.Position
	err       error
}

func newMemory(positions map[string]client.Position) *memory { return &memory{positions: positions} }

func (m *memory) Load(context.Context) (map[string]client.Position, error) { return m.positions, m.err }

func (m *memory) Save(_ context.Context, id string, position client.Position) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.positions[id] = position
	return nil
}

func (m *memory) Forget(_ context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.positions, id)
	return nil
}

func TestPositionsOutliveTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, h := newGateway(), newHistory(6)
		cursors := newMemory(map[string]client.Position{})
		with := func(cfg *client.Config) { cfg.Cursors = cursors }
		c, v := start(t, g, with)
		l, _ := g.accept(t, connected(h.info()))
		synctest.Wait()
		require.Equal(t, uint64(6), cursors.positions[h.id].Seq, "where it began is kept, too")
		h.grow(3)
		l.send(h.push(7), h.push(8))
		l.silent(t)
		require.NoError(t, c.Close())
		require.Equal(t, upTo(7, 8), v.seqs(h.id))
		require.Equal(t, client.Position{Seq: 8, Hash: h.events[7].GetHash()}, cursors.positions[h.id])

		_, v = start(t, g, with)
		l, connect := g.accept(t, connected(h.info()))
		require.Equal(t, map[string]uint64{h.id: 8}, resumed(connect))
		// The chain is checked across the restart. This event is valid in itself, but follows another event.
		forged := frame.ToClient(proto.CloneOf(h.events[8]))
		forged.PrevHash = make([]byte, chain.Size)
		sum := chain.Hash(frame.FromClient(forged))
		forged.Hash = sum[:]
		l.send(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Event{Event: forged}})
		l.send(h.page(l.recv(t)))
		l.silent(t)
		require.Equal(t, upTo(9, 9), v.seqs(h.id))
	})
	g := newGateway()
	c, err := client.New(client.Config{
		URL: "ws://gateway", DeviceID: "phone", Dial: g.dial, Cursors: &memory{err: errors.New("disk")},
		Token: func(context.Context) (string, error) { return "", nil },
	})
	require.NoError(t, err)
	require.ErrorContains(t, c.Start(t.Context()), "disk")
	<-c.Ended()
	require.Error(t, c.Close())
}

func TestASlowCallbackPutsOffWhatItHasNoRoomFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, h := newGateway(), newHistory(100)
		var c *client.Client
		let := make(chan struct{})
		c, v := start(t, g, fromFirst, func(cfg *client.Config) {
			cfg.MaxEvents = 10
			see := cfg.OnEvent
			cfg.OnEvent = func(ctx context.Context, event client.Event) {
				<-let
				see(ctx, event)
			}
		})
		l, _ := g.accept(t, connected(h.info()))
		for seq := range uint64(100) {
			l.send(h.push(seq + 1))
		}
		// The connection continues meanwhile.
		ticket := enqueue(t, c, h.id, "hello")
		l.send(commit(l.recv(t), 101))
		_, err := ticket.Wait(t.Context())
		require.NoError(t, err)
		require.Positive(t, c.Stats().EventsPutOff)
		close(let)
		for {
			synctest.Wait()
			if len(v.seqs(h.id)) == 100 {
				break
			}
			l.send(h.page(l.recv(t)))
		}
		require.Equal(t, upTo(1, 100), v.seqs(h.id))
		require.Empty(t, v.broken)
	})
}

func TestReceipts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, h := newGateway(), newHistory(1)
		var versions []int64
		_, _ = start(t, g, func(cfg *client.Config) {
			cfg.OnReceipt = func(r *conversationv1.Receipt) { versions = append(versions, r.GetVersion()) }
		})
		l, connect := g.accept(t, connected(h.info()))
		require.False(t, connect.GetNoReceipts())
		for _, version := range []int64{5, 3, 5, 8} {
			l.send(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Receipt{Receipt: &conversationv1.Receipt{ConversationId: h.id, Version: version}}})
			l.silent(t)
		}
		require.Equal(t, []int64{5, 8}, versions)
	})
}

func TestAcksAreCollected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, h, other := newGateway(), newHistory(100), newHistory(3)
		c, _ := start(t, g, fromFirst)
		l, _ := g.accept(t, connected(h.info(), other.info()))
		began := time.Now()
		l.send(h.push(1), h.push(2), other.push(1))
		time.Sleep(100 * time.Millisecond)
		l.send(h.push(3))
		c.MarkRead(other.id, 7)
		acks := l.recvAck(t)
		require.Equal(t, 200*time.Millisecond, time.Since(began))
		require.Equal(t, uint64(3), acks[h.id].GetDelivered())
		require.Zero(t, acks[h.id].GetRead())
		require.Equal(t, uint64(1), acks[other.id].GetDelivered())
		require.Equal(t, uint64(1), acks[other.id].GetRead(), "nobody has read what they have not received")

		// An acknowledgement of many events is sent at once.
		began = time.Now()
		for seq := uint64(4); seq <= 67; seq++ {
			l.send(h.push(seq))
		}
		require.Equal(t, uint64(67), l.recvAck(t)[h.id].GetDelivered())
		require.Zero(t, time.Since(began))

		// If an event is sent again, the gateway did not get its acknowledgement.
		l.send(h.push(60))
		require.Equal(t, uint64(67), l.recvAck(t)[h.id].GetDelivered())
		time.Sleep(time.Minute)
		l.silent(t)

		// Close sends the acknowledgement that is due.
		l.send(h.push(68))
		synctest.Wait()
		require.NoError(t, c.Close())
		require.Equal(t, uint64(68), l.recvAck(t)[h.id].GetDelivered())
	})
}

func TestAcksThatWereLostAreRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, h := newGateway(), newHistory(3)
		c, _ := start(t, g, fromFirst)
		l, _ := g.accept(t, connected(h.info()))
		l.send(h.push(1), h.push(2), h.push(3))
		synctest.Wait()
		c.MarkRead(h.id, 2)
		l.recvAck(t)
		l.cut()
		info := h.info()
		info.Cursor = &conversationv1.Cursor{DeliveredSeq: 2, ReadSeq: 1}
		l, _ = g.accept(t, connected(info))
		require.Equal(t, uint64(3), l.recvAck(t)[h.id].GetDelivered())
		l.cut()
		info.Cursor = &conversationv1.Cursor{DeliveredSeq: 3, ReadSeq: 2}
		l, _ = g.accept(t, connected(info))
		time.Sleep(time.Minute)
		l.silent(t)
	})
}

func TestReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, h := newGateway(), newHistory(6)
		c, _ := start(t, g)
		l, _ := g.accept(t, connected())
		backward := func(events ...*clientv1.Event) []*clientv1.Event { return events }
		e := sent(h.events...)
		for _, test := range []struct {
			name   string
			before bool
			page   *clientv1.Page
			broken bool
		}{
			{"rising", false, &clientv1.Page{Events: e[2:5]}, false},
			{"rising, hidden", false, &clientv1.Page{Events: backward(e[2], e[5]), Hidden: []*conversationv1.Range{{First: 5, Last: 5}, {First: 4, Last: 4}}}, false},
			{"rising, hidden first", false, &clientv1.Page{Events: e[4:5], Hidden: []*conversationv1.Range{{First: 1, Last: 4}}}, false},
			{"rising, hole", false, &clientv1.Page{Events: backward(e[2], e[4])}, true},
			{"rising, hole first", false, &clientv1.Page{Events: e[3:5]}, true},
			{"falling", true, &clientv1.Page{Events: backward(e[4], e[3], e[2])}, false},
			{"falling, hole", true, &clientv1.Page{Events: backward(e[4], e[2])}, true},
			{"forged", true, &clientv1.Page{Events: backward(tampered(e[4]).GetEvent())}, true},
			{"of another conversation", false, &clientv1.Page{Events: sent(newHistory(1).events...)}, true},
		} {
			done := make(chan error, 1)
			go func() {
				var err error
				if test.before {
					_, err = c.ReadBefore(t.Context(), h.id, 6, 3)
				} else {
					_, err = c.ReadAfter(t.Context(), h.id, 2, 3)
				}
				done <- err
			}()
			f := l.recv(t)
			require.Equal(t, test.before, f.GetRead().GetBackward())
			l.send(&clientv1.ServerFrame{Id: f.GetId(), Message: &clientv1.ServerFrame_Page{Page: test.page}})
			if err := <-done; test.broken {
				var broken *chain.Broken
				require.ErrorAs(t, err, &broken, test.name)
			} else {
				require.NoError(t, err, test.name)
			}
		}
		// A temporary refusal is retried; a permanent refusal is returned.
		done := make(chan error, 1)
		go func() { _, err := c.ReadAfter(t.Context(), h.id, 0, 0); done <- err }()
		l.send(refuse(l.recv(t).GetId(), conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE))
		l.send(refuse(l.recv(t).GetId(), conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND))
		var refusal *client.RefusedError
		require.ErrorAs(t, <-done, &refusal)
	})
}

func TestListing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		c, _ := start(t, g)
		l, _ := g.accept(t, connected())
		var ids, members []string
		done := make(chan error)
		go func() {
			for info, err := range c.Conversations(t.Context()) {
				ids = append(ids, fmt.Sprint(info.GetConversationId(), err))
			}
			done <- nil
			for member, err := range c.Members(t.Context(), "a") {
				members = append(members, fmt.Sprint(member.GetUserId(), err))
			}
			done <- nil
			for _, err := range c.Members(t.Context(), "b") {
				done <- err
			}
		}()
		for _, more := range []bool{true, false} {
			f := l.recv(t)
			list := &clientv1.Conversations{Conversations: []*clientv1.Conversation{{ConversationId: f.GetListConversations().GetAfter() + "a"}}, More: more}
			l.send(&clientv1.ServerFrame{Id: f.GetId(), Message: &clientv1.ServerFrame_Conversations{Conversations: list}})
		}
		<-done
		require.Equal(t, []string{"a<nil>", "aa<nil>"}, ids)
		f := l.recv(t)
		l.send(&clientv1.ServerFrame{Id: f.GetId(), Message: &clientv1.ServerFrame_Members{Members: &clientv1.Members{Members: []*conversationv1.Cursor{{UserId: "bob"}}}}})
		<-done
		require.Equal(t, []string{"bob<nil>"}, members)
		l.send(refuse(l.recv(t).GetId(), conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND))
		var refusal *client.RefusedError
		require.ErrorAs(t, <-done, &refusal)

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for _, err := range c.Members(ctx, "c") {
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}
	})
}
