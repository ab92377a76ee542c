package client_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
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

// forks records the calls of OnEvent and OnForked in order: "seq" for an event and "from>to" for a fork.
type forks struct {
	told  []string
	forks []client.Fork
}

func (f *forks) watch(cfg *client.Config) {
	cfg.OnEvent = func(_ context.Context, event client.Event) {
		f.told = append(f.told, strconv.FormatUint(event.GetSeq(), 10))
	}
	cfg.OnForked = func(fork client.Fork) {
		f.told = append(f.told, fmt.Sprintf("%d>%d", fork.From, fork.To))
		f.forks = append(f.forks, fork)
	}
}

func forked(h *history, seq uint64) *clientv1.ServerFrame {
	return &clientv1.ServerFrame{Message: &clientv1.ServerFrame_Forked{Forked: &clientv1.Forked{ConversationId: h.id, Head: h.head(), Seq: seq}}}
}

func positionOf(connect *clientv1.Connect, h *history) *clientv1.Position {
	for _, position := range connect.GetResume() {
		if position.GetConversationId() == h.id {
			return position
		}
	}
	return nil
}

// answerReads answers all reads of the client until it sends another frame. It returns that frame; nil if the connection
// ended.
func (l *link) answerReads(t *testing.T, h *history) (f *clientv1.ClientFrame, reads []uint64) {
	t.Helper()
	for {
		f, err := l.next()
		require.NoError(t, err)
		switch {
		case f == nil:
			synctest.Wait()
			return nil, reads
		case f.GetRead() != nil:
			reads = append(reads, f.GetRead().GetAfter()+1)
			l.send(h.page(f))
		case f.GetAck() == nil && f.GetPong() == nil:
			return f, reads
		}
	}
}

func TestALogThatWentBackIsLeftAndFollowedAgain(t *testing.T) {
	for _, test := range []struct {
		name string
		// grown is the number of events that the server has added since the fork.
		grown int
		// show does something that makes the client detect the fork.
		show func(t *testing.T, g *gateway, l *link, h *history) *link
	}{
		{"a Forked push, the log ends lower", 0, reconnectTold},
		{"a Forked push, the log is on another branch", 40, reconnectTold},
		{"the head is below", 0, reconnected},
		{"the head is below, on another branch", 5, reconnected},
		{"a repeated event differs", 1, func(_ *testing.T, _ *gateway, l *link, h *history) *link { l.send(h.push(41)); return l }},
		{"an event does not chain", 12, func(_ *testing.T, _ *gateway, l *link, h *history) *link { l.send(h.push(51)); return l }},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, h := newGateway(), newHistory(50)
				var f forks
				cursors := newMemory(map[string]client.Position{})
				c, _ := start(t, g, fromFirst, f.watch, func(cfg *client.Config) { cfg.Cursors = cursors })
				l, _ := g.accept(t, connected(h.info()))
				for seq := range uint64(50) {
					l.send(h.push(seq + 1))
				}
				synctest.Wait()
				h.back(40)
				h.grow(test.grown)

				l = test.show(t, g, l, h)
				said, reads := l.answerReads(t, h)
				require.Nil(t, said, "it reconnects")
				require.Less(t, len(reads), 12, "few reads: %v", reads)
				require.Equal(t, client.Position{Seq: 40, Hash: h.events[39].GetHash()}, cursors.positions[h.id])
				l, connect := g.accept(t, connected(h.info()))
				require.Equal(t, uint64(40), positionOf(connect, h).GetSeq())
				require.Equal(t, h.events[39].GetHash()[:chain.PrefixSize], positionOf(connect, h).GetHash())
				f.told = f.told[len(f.told)-2:]
				require.Equal(t, []string{"50", "50>40"}, f.told)

				h.grow(1)
				// The next event does not chain to the common event.
				astray := frame.ToClient(proto.CloneOf(h.events[40]))
				astray.PrevHash = make([]byte, chain.Size)
				sum := chain.Hash(frame.FromClient(astray))
				astray.Hash = sum[:]
				l.send(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Event{Event: astray}})
				l.send(h.page(l.recv(t)))
				l.silentButPong(t)
				require.Len(t, f.told, int(h.head()-40)+2)
				require.Equal(t, "41", f.told[2])
				seq, _ := c.Position(h.id)
				require.Equal(t, h.head(), seq)
				require.Equal(t, uint64(1), c.Stats().Forks)
				l.cut()
				_, connect = g.accept(t, connected(h.info()))
				require.Equal(t, h.events[h.head()-1].GetHash()[:chain.PrefixSize], positionOf(connect, h).GetHash())
			})
		})
	}
}

// reconnected reconnects the client with its present position.
func reconnected(t *testing.T, g *gateway, l *link, h *history) *link {
	t.Helper()
	l.cut()
	l, connect := g.accept(t, connected(h.info()))
	require.Equal(t, uint64(50), positionOf(connect, h).GetSeq())
	require.Len(t, positionOf(connect, h).GetHash(), chain.PrefixSize)
	return l
}

func reconnectTold(t *testing.T, g *gateway, l *link, h *history) *link {
	t.Helper()
	l = reconnected(t, g, l, h)
	l.send(forked(h, 50))
	return l
}

// The server lost so many events that the client must search far back, where it remembers few events.
func TestTheLastCommonEventIsFoundFarBack(t *testing.T) {
	for _, back := range []uint64{1, 3, 500, 1000, 1500, 1999} {
		synctest.Test(t, func(t *testing.T) {
			g, h := newGateway(), newHistory(2000)
			var f forks
			_, _ = start(t, g, fromFirst, f.watch, func(cfg *client.Config) { cfg.MaxEvents = 3000 })
			l, _ := g.accept(t, connected(h.info()))
			for seq := range uint64(2000) {
				l.send(h.push(seq + 1))
			}
			synctest.Wait()
			h.back(back)
			h.grow(2001 - int(back))
			l.send(forked(h, 2000))
			end, reads := l.answerReads(t, h)
			require.Nil(t, end)
			require.Less(t, len(reads), 16)
			slices.Sort(reads)
			require.Len(t, slices.Compact(slices.Clone(reads)), len(reads), "nothing is read twice: %v", reads)
			require.Len(t, f.forks, 1)
			require.LessOrEqual(t, f.forks[0].To, back)
			// Each time that the distance doubles, there are two to four marks.
			lost := 2000 - back
			require.LessOrEqual(t, 2000-f.forks[0].To, max(2*lost, lost+32), "%d of %d", f.forks[0].To, back)
			_, connect := g.accept(t, connected(h.info()))
			require.Equal(t, f.forks[0].To, connect.GetResume()[0].GetSeq())
		})
	}
}

func TestAfterARestartOnlyTheNewestEventIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, h := newGateway(), newHistory(9)
		cursors := newMemory(map[string]client.Position{h.id: {Seq: 9, Hash: h.events[8].GetHash()}})
		var f forks
		_, _ = start(t, g, f.watch, func(cfg *client.Config) { cfg.Cursors = cursors })
		info := h.info()
		info.JoinedSeq, info.Head = 3, 6
		last := h.events[8].GetHash()
		h.back(6)
		l, connect := g.accept(t, connected(info))
		require.Equal(t, last[:chain.PrefixSize], positionOf(connect, h).GetHash())
		_, _ = l.answerReads(t, h)
		require.Equal(t, []string{"9>2"}, f.told)
		require.Equal(t, client.Position{Seq: 2}, cursors.positions[h.id])
	})
}

func TestAHiddenStretchIsNoFork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, h := newGateway(), newHistory(5)
		var f forks
		_, _ = start(t, g, fromFirst, f.watch)
		l, _ := g.accept(t, connected(h.info()))
		l.send(h.push(1), hide(h, 2, 5))
		synctest.Wait()
		l.cut()
		info := h.info()
		info.Head = 3
		l, _ = g.accept(t, connected(info))
		read := l.recv(t)
		require.Equal(t, uint64(4), read.GetRead().GetAfter())
		l.send(&clientv1.ServerFrame{Id: read.GetId(), Message: &clientv1.ServerFrame_Page{Page: &clientv1.Page{
			Hidden: []*conversationv1.Range{{First: 5, Last: 5}}, Head: 5,
		}}})
		h.grow(1)
		l.send(h.push(6))
		l.silent(t)
		require.Equal(t, []string{"1", "6"}, f.told)
	})
}

// The first event contains the hash of the previous event, which the program never received.
func TestTheEventBeforeTheFirstIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, h := newGateway(), newHistory(6)
		var f forks
		_, _ = start(t, g, f.watch)
		l, _ := g.accept(t, connected(h.info()))
		h.grow(2)
		l.send(h.push(7), h.push(8))
		synctest.Wait()
		h.back(6)
		h.grow(3)
		l.send(forked(h, 8))
		_, _ = l.answerReads(t, h)
		require.Equal(t, []string{"7", "8", "8>6"}, f.told)
	})
}

func TestNothingIsTakenWhileHistoryIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, h := newGateway(), newHistory(5)
		_, v := start(t, g, fromFirst)
		l, _ := g.accept(t, connected(h.info()))
		l.send(h.push(1), h.push(4))
		gap := l.recv(t)
		l.send(forked(h, 1))
		probe := l.recv(t)
		l.send(h.page(gap), h.push(2), hide(h, 2, 3), h.beat())
		l.silentButPong(t)
		require.Equal(t, upTo(1, 1), v.seqs(h.id))
		l.send(h.page(probe))
		_, _ = l.answerReads(t, h)
		l, _ = g.accept(t, connected(h.info()))
		for seq := uint64(2); seq <= 5; seq++ {
			l.send(h.push(seq))
		}
		require.Empty(t, h.serve(t, l))
		require.Equal(t, upTo(1, 5), v.seqs(h.id))
	})
}

func TestAConversationThatOnlyLooksForkedGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, h := newGateway(), newHistory(5)
		var f forks
		_, v := start(t, g, fromFirst, func(cfg *client.Config) { cfg.OnForked = func(fork client.Fork) { f.forks = append(f.forks, fork) } })
		l, _ := g.accept(t, connected(h.info()))
		for seq := range uint64(5) {
			l.send(h.push(seq + 1))
		}
		synctest.Wait()
		l.cut()
		// The gateway's list is older than the client's position.
		info := h.info()
		info.Head = 3
		l, _ = g.accept(t, connected(info))
		h.grow(3)
		l.send(h.push(6)) // not accepted while the client reads history
		l.send(h.page(l.recv(t)))
		f1 := l.recv(t)
		require.Equal(t, uint64(5), f1.GetRead().GetAfter())
		l.send(h.page(f1))
		l.silent(t)
		// The gateway repeats an event with an invalid hash.
		odd := h.push(4)
		odd.GetEvent().Hash = make([]byte, chain.Size)
		l.send(odd)
		l.send(h.page(l.recv(t)))
		l.silent(t)
		require.Empty(t, f.forks)
		require.Empty(t, v.broken)
		require.Equal(t, upTo(1, 8), v.seqs(h.id))
		// The gateway reports a fork and pushes nothing more, so the client reconnects.
		l.send(forked(h, 8))
		_, _ = l.answerReads(t, h)
		_, connect := g.accept(t, connected(h.info()))
		require.Equal(t, uint64(8), connect.GetResume()[0].GetSeq())
		require.Empty(t, f.forks)
	})
}

// serve commits the client's commands, once per command id, until the connection ends or no more frames arrive.
func (h *history) serve(t *testing.T, l *link) (said []string) {
	t.Helper()
	for {
		synctest.Wait()
		if len(l.pending)+len(l.toServer) == 0 {
			return said
		}
		f, err := l.next()
		require.NoError(t, err)
		switch {
		case f.GetRead() != nil:
			l.send(h.page(f))
		case f.GetSubmit() != nil:
			event, refusal := h.apply("alice", f.GetSubmit().GetCommandId(), f.GetSubmit().GetBody())
			require.Nil(t, refusal)
			said = append(said, f.GetSubmit().GetCommandId())
			l.send(commit(f, event.GetSeq()), h.push(event.GetSeq()))
		}
	}
}

func TestWhatTheUserHadCommittedIsSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, h := newGateway(), newHistory(3)
		var f forks
		c, _ := start(t, g, fromFirst, f.watch)
		l, _ := g.accept(t, connected(h.info()))
		l.send(h.push(1), h.push(2), h.push(3))
		kept := enqueue(t, c, h.id, "kept") // 4
		h.serve(t, l)
		first := enqueue(t, c, h.id, "first") // 5
		h.serve(t, l)
		give := func(body *conversationv1.Body) *client.Ticket {
			ticket, err := c.Enqueue(h.id, body)
			require.NoError(t, err)
			h.serve(t, l)
			return ticket
		}
		answerLost := give(&conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: "answer", ReplyTo: 5}}}) // 6
		editLost := give(&conversationv1.Body{Action: &conversationv1.Body_Edit{Edit: &conversationv1.Edit{Target: 5, Text: "edited"}}})             // 7
		editKept := give(&conversationv1.Body{Action: &conversationv1.Body_Edit{Edit: &conversationv1.Edit{Target: 4, Text: "edited"}}})             // 8
		last := give(&conversationv1.Body{Action: &conversationv1.Body_React{React: &conversationv1.React{Target: 3, Emoji: "👍"}}})                  // 9
		require.Equal(t, uint64(9), h.head())
		l.cut()
		synctest.Wait()
		unsent, next := enqueue(t, c, h.id, "unsent"), enqueue(t, c, h.id, "next")

		h.back(4)
		l, _ = g.accept(t, connected(h.info()))
		require.Equal(t, "unsent", said(l.recv(t)), "it was sent before the fork was known")
		l.send(forked(h, 9))
		_, _ = l.answerReads(t, h)
		l, _ = g.accept(t, connected(h.info()))
		order := h.serve(t, l)
		require.Equal(t, []string{unsent.CommandID, first.CommandID, answerLost.CommandID, editKept.CommandID, last.CommandID, next.CommandID}, order)
		require.Len(t, f.forks, 1)
		require.Equal(t, uint64(9), f.forks[0].From)
		require.Equal(t, uint64(4), f.forks[0].To)
		var ids []string
		for _, ticket := range f.forks[0].Commands {
			ids = append(ids, ticket.CommandID)
			_, err := ticket.Wait(t.Context())
			if ticket.CommandID == editLost.CommandID {
				require.ErrorIs(t, err, client.ErrUndone, "it would edit another event")
			} else {
				require.NoError(t, err)
			}
		}
		require.Equal(t, []string{first.CommandID, answerLost.CommandID, editLost.CommandID, editKept.CommandID, last.CommandID}, ids)
		require.NotContains(t, order, kept.CommandID)
		body, err := decode(h.events[6])
		require.NoError(t, err)
		require.Equal(t, "answer", body.GetMessage().GetText())
		require.Zero(t, body.GetMessage().GetReplyTo(), "the message that it replied to was undone")
		_, err = unsent.Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, []string{"9>4", "5", "6", "7", "8", "9", "10"}, f.told[len(f.told)-7:])
	})
}

func TestCommandsThatWaitGoAfterThoseThatAreSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, h := newGateway(), newHistory(3)
		c, _ := start(t, g, fromFirst)
		l, _ := g.accept(t, connected(h.info()))
		l.send(h.push(1), h.push(2), h.push(3))
		first := enqueue(t, c, h.id, "first")
		h.serve(t, l)
		h.back(3)
		l.send(forked(h, 4))
		_, _ = l.answerReads(t, h)
		<-l.closed
		second := enqueue(t, c, h.id, "second")
		l, _ = g.accept(t, connected(h.info()))
		require.Equal(t, []string{first.CommandID, second.CommandID}, h.serve(t, l))
	})
}

// The outcome is known and the event has not arrived yet when the server loses the event.
func TestACommittedCommandWhoseEventNeverCameIsSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, h := newGateway(), newHistory(3)
		var f forks
		c, _ := start(t, g, fromFirst, f.watch)
		l, _ := g.accept(t, connected(h.info()))
		l.send(h.push(1), h.push(2), h.push(3))
		ticket := enqueue(t, c, h.id, "hello")
		l.send(commit(l.recv(t), 4))
		<-ticket.Done()
		l.cut()
		l, _ = g.accept(t, connected(h.info()))
		_, _ = l.answerReads(t, h)
		l, _ = g.accept(t, connected(h.info()))
		require.Equal(t, []string{ticket.CommandID}, h.serve(t, l))
		require.Equal(t, []string{"1", "2", "3", "4>3", "4"}, f.told)
	})
}

func TestAConversationThatIsGoneIsCreatedAgainByItsCreator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		var f forks
		c, _ := start(t, g, f.watch)
		l, _ := g.accept(t, connected())
		done := make(chan string, 1)
		go func() {
			id, _ := c.CreateGroup(t.Context(), "team", "bob")
			done <- id
		}()
		create := l.recv(t)
		command, body := ids.Command(create.GetSubmit().GetCommandId()), create.GetSubmit().GetBody()
		h := newHistory(0)
		h.id = string(conversation.GroupID("alice", command))
		made := func(f *clientv1.ClientFrame) {
			_, refusal := h.apply("alice", string(command), body)
			require.Nil(t, refusal)
			l.send(&clientv1.ServerFrame{Id: f.GetId(), Message: &clientv1.ServerFrame_Outcome{Outcome: &conversationv1.Outcome{ConversationId: h.id, CommandId: string(command), Seq: 1}}},
				attach(h.info()), h.push(1))
		}
		made(create)
		<-done
		message := enqueue(t, c, h.id, "hello")
		h.serve(t, l)
		l.cut()
		h.back(0)
		l, _ = g.accept(t, connected())
		l.send(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Detached{Detached: &clientv1.Detached{ConversationId: h.id}}})
		<-l.closed
		l, _ = g.accept(t, connected())
		again := l.recv(t)
		require.Equal(t, command, ids.Command(again.GetSubmit().GetCommandId()))
		require.Empty(t, again.GetSubmit().GetConversationId())
		l.silent(t) // the message waits in the outbox
		made(again)
		require.Equal(t, []string{message.CommandID}, h.serve(t, l))
		require.Equal(t, []string{"1", "2", "2>0", "1", "2"}, f.told)
	})
}

// Events that were queued for a slow program are delivered before OnForked. They do not move the position after the fork.
func TestAForkIsToldInOrderToASlowProgram(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, h := newGateway(), newHistory(8)
		var f forks
		let := make(chan struct{})
		cursors := newMemory(map[string]client.Position{})
		_, _ = start(t, g, fromFirst, f.watch, func(cfg *client.Config) {
			cfg.Cursors = cursors
			see := cfg.OnEvent
			cfg.OnEvent = func(ctx context.Context, event client.Event) { <-let; see(ctx, event) }
		})
		l, _ := g.accept(t, connected(h.info()))
		for seq := range uint64(8) {
			l.send(h.push(seq + 1))
		}
		synctest.Wait()
		h.back(5)
		l.send(forked(h, 8))
		_, _ = l.answerReads(t, h)
		l, _ = g.accept(t, connected(h.info()))
		h.grow(1)
		l.send(h.push(6))
		synctest.Wait()
		close(let)
		synctest.Wait()
		require.Equal(t, []string{"1", "2", "3", "4", "5", "6", "7", "8", "8>5", "6"}, f.told)
		require.Equal(t, client.Position{Seq: 6, Hash: h.events[5].GetHash()}, cursors.positions[h.id])
		require.Equal(t, uint64(6), l.recvAck(t)[h.id].GetDelivered())
	})
}

func TestNothingThatWasUndoneIsAcknowledged(t *testing.T) {
	for _, slow := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			g, h := newGateway(), newHistory(8)
			var f forks
			events, goOn := make(chan struct{}), make(chan struct{})
			_, _ = start(t, g, fromFirst, f.watch, func(cfg *client.Config) {
				see, on := cfg.OnEvent, cfg.OnForked
				cfg.OnEvent = func(ctx context.Context, event client.Event) {
					if slow {
						<-events
					}
					see(ctx, event)
				}
				cfg.OnForked = func(fork client.Fork) { <-goOn; on(fork) }
			})
			l, _ := g.accept(t, connected(h.info()))
			for seq := range uint64(8) {
				l.send(h.push(seq + 1))
			}
			synctest.Wait()
			h.back(5)
			l.send(forked(h, 8))
			_, _ = l.answerReads(t, h)
			info := h.info()
			info.Cursor = &conversationv1.Cursor{DeliveredSeq: 4}
			l, _ = g.accept(t, connected(info))
			close(events)
			h.grow(2)
			if !slow {
				l.send(h.push(6), h.push(7))
			}
			time.Sleep(time.Second)
			synctest.Wait()
			for len(l.toServer)+len(l.pending) > 0 {
				ack, err := l.next()
				require.NoError(t, err)
				for _, position := range ack.GetAck().GetPositions() {
					require.LessOrEqual(t, position.GetDelivered(), uint64(5))
				}
			}
			close(goOn)
			if slow {
				require.Equal(t, uint64(5), l.recvAck(t)[h.id].GetDelivered())
				l.send(h.push(6), h.push(7))
			}
			require.Equal(t, uint64(7), l.recvAck(t)[h.id].GetDelivered())
		})
	}
}

func TestAServerThatContradictsItselfIsNoFork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, h := newGateway(), newHistory(5)
		var f forks
		_, v := start(t, g, fromFirst, func(cfg *client.Config) { cfg.OnForked = func(fork client.Fork) { f.forks = append(f.forks, fork) } })
		l, _ := g.accept(t, connected(h.info()))
		l.send(h.push(1), h.push(2), h.push(3))
		forged := proto.CloneOf(h.events[3])
		forged.CommandId = uuid.Must(uuid.NewV7()).String()
		l.send(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Event{Event: frame.ToClient(forged)}})
		page := h.page(l.recv(t))
		page.GetPage().Events[0] = frame.ToClient(forged)
		l.send(page)
		l.send(h.page(l.recv(t)))
		l.silent(t)
		require.Len(t, v.broken, 1)
		require.Empty(t, f.forks)
	})
}

func TestCommittedCommandsAreKeptWithinBounds(t *testing.T) {
	for size, want := range map[int]int{1: 1000, 8000: 130} {
		synctest.Test(t, func(t *testing.T) {
			g, h := newGateway(), newHistory(1)
			var f forks
			c, _ := start(t, g, fromFirst, f.watch)
			l, _ := g.accept(t, connected(h.info()))
			l.send(h.push(1))
			for i := range 1010 {
				enqueue(t, c, h.id, strings.Repeat(strconv.Itoa(i%10), size))
				h.serve(t, l)
			}
			newest := h.events[len(h.events)-1].GetCommandId()
			h.back(1)
			l.send(forked(h, 1011))
			_, _ = l.answerReads(t, h)
			require.Len(t, f.forks, 1)
			require.InDelta(t, want, len(f.forks[0].Commands), 1)
			require.Equal(t, newest, f.forks[0].Commands[len(f.forks[0].Commands)-1].CommandID)
		})
	}
}
