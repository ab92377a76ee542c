package room

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"
)

// Each connection gets events in its encoding, live and from history, and can verify them as far as the encoding permits.
func TestEventsComeInTheEncodingOfTheConnection(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 4, "hello")
	s.store.Put(log[:3])
	r := s.room()
	clients := map[string]*client{
		"ann": s.client("ann", frame.Proto), "bob": s.client("bob", frame.JSON), "cem": s.client("cem", frame.JSONWithBytes),
	}
	for _, c := range clients {
		c.resume(position(log[0]))
		c.seqs(1) // the second event
	}
	s.store.Put(log)
	s.live(r, log[3])
	for name, c := range clients {
		for seq := uint64(3); seq <= 4; seq++ {
			event := c.next().GetEvent()
			require.Equal(t, seq, event.GetSeq(), name)
			require.Equal(t, "hello", event.GetBody().GetMessage().GetText(), name)
			stored := frame.FromClient(event)
			if c.Events.Codec() == frame.JSON {
				require.Empty(t, event.GetBodyBytes(), name)
				continue
			}
			require.Equal(t, log[seq-1].GetBody(), event.GetBodyBytes(), name)
			content, err := chain.From(ids.Seq(seq-1), log[seq-2].GetHash()).Next(stored)
			require.NoError(t, err)
			require.Equal(t, chain.Verified, content, name)
		}
	}
}

// A gap is never skipped, neither for live subscriptions nor for clients that reconnect.
func TestAHoleInTheStoreIsNotPassedOver(t *testing.T) {
	log := branch(nil, 8, "x")
	for name, begin := range map[string]func(s *stage) *client{
		"in a gap": func(s *stage) *client {
			s.store.Put(log[:3])
			r := s.room()
			c := s.client("ann", frame.Proto)
			c.resume()
			s.store.Set(func() { s.store.Log, s.store.Missing = log, 5 })
			s.live(r, log[7])
			return c
		},
		"for a client that is behind": func(s *stage) *client {
			s.store.Put(log)
			s.store.Set(func() { s.store.Missing = 5 })
			s.room()
			c := s.client("ann", frame.Proto)
			c.resume(position(log[2]))
			return c
		},
		"in an earlier membership": func(s *stage) *client {
			s.store.Put(log)
			s.store.Set(func() { s.store.Missing, s.store.Earlier, s.store.Joined = 5, 6, 7 })
			s.room()
			c := s.client("ann", frame.Proto)
			c.resume(position(log[2]))
			return c
		},
		"in a former conversation": func(s *stage) *client {
			s.store.Put(log)
			s.store.Set(func() { s.store.Missing, s.store.Left = 5, 8 })
			c := s.client("ann", frame.Proto)
			c.resume(position(log[2]))
			return c
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			c := begin(s)
			require.Eventually(t, func() bool { return testutil.ToFloat64(s.metrics.Holes) > 1 }, patience, time.Millisecond, "the read is tried again")
			require.Contains(t, s.logs.String(), groupID)
			require.Contains(t, s.logs.String(), "level=ERROR")
			c.quiet()
			s.store.Set(func() { s.store.Missing = 0 })
			require.Equal(t, []uint64{4, 5, 6, 7, 8}, c.seqs(5))
			require.Zero(t, testutil.ToFloat64(s.metrics.Reloads), "a hole is not a fork")
		})
	}
}

// Pages in which each body is contained twice have fewer events.
func TestAPageFitsIntoTheSendQueue(t *testing.T) {
	s := newStage(t)
	require.Equal(t, s.hub.cfg.SendQueueBytes/4, s.hub.PageBytes(s.client("ann", frame.JSON).Events))
	require.Equal(t, s.hub.cfg.SendQueueBytes/8, s.hub.PageBytes(s.client("bob", frame.JSONWithBytes).Events))
}

// removal returns the event that removes bob.
func removal(log []*conversationv1.Event) *conversationv1.Event {
	return next(log, "cem", &conversationv1.Body{Action: &conversationv1.Body_RemoveMember{RemoveMember: &conversationv1.RemoveMember{Member: "bob"}}})
}

// No user gets an event after the one that ended their membership, whether live or behind.
func TestAMembershipEndsWithItsLastEvent(t *testing.T) {
	for name, behind := range map[string]bool{"live": false, "behind": true} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			log := branch(nil, 3, "x")
			s.store.Put(log)
			r := s.room()
			ann, bob := s.client("ann", frame.Proto), s.client("bob", frame.Proto)
			ann.resume()
			bob.resume()
			subscription := bob.subscription()
			r.mu.Lock()
			subscription.behind = behind // his filler is slow
			r.mu.Unlock()
			log = append(log, removal(log))
			log = branch(log, 6, "secret")
			s.store.Put(log)
			s.live(r, log[3:]...)
			if behind {
				bob.quiet()
				r.mu.Lock()
				subscription.behind = false
				r.putBehindLocked(subscription)
				r.mu.Unlock()
			}
			require.Equal(t, []uint64{4}, bob.seqs(1))
			require.Equal(t, uint64(4), bob.next().GetDetached().GetLast())
			bob.quiet()
			require.Equal(t, []uint64{4, 5, 6}, ann.seqs(3))
			require.Len(t, r.subscriptions, 1)
		})
	}
}

// Users whose membership begins are reported to the sessions, once for each event.
func TestJoinsAreTold(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 2, "x")
	s.store.Put(log)
	r := s.room()
	s.client("ann", frame.Proto).resume()
	added := next(log, "cem", &conversationv1.Body{Action: &conversationv1.Body_AddMembers{AddMembers: &conversationv1.AddMembers{Members: []string{"dan", "eve"}}}})
	s.live(r, added)
	require.Equal(t, "dan", <-s.joined)
	require.Equal(t, "eve", <-s.joined)
	s.live(r, added)
	require.Empty(t, s.joined, "a repeat reports no user")
}

// A message that was lost on the bus is read from the store, however the loss is detected.
func TestAGapIsFilled(t *testing.T) {
	log := branch(nil, 6, "x")
	for name, notice := range map[string]func(s *stage, r *Room){
		"by the next event":  func(s *stage, r *Room) { s.live(r, log[5]) },
		"by comparing heads": func(s *stage, _ *Room) { s.hub.Compare(s.t.Context(), patience) },
		"by a client that connects": func(s *stage, _ *Room) {
			s.client("dan", frame.Proto).resume()
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			s.store.Put(log[:3])
			r := s.room()
			ann := s.client("ann", frame.Proto)
			ann.resume()
			s.store.Put(log)
			notice(s, r)
			require.Equal(t, []uint64{4, 5, 6}, ann.seqs(3))
			s.live(r, log[3:]...) // the lost message arrives after all
			ann.quiet()
			require.InDelta(t, 3, testutil.ToFloat64(s.metrics.GapEvents), 0)
		})
	}
}

// Live messages that come twice, too late or in another order are sent once, in the order of the log.
func TestLateMessagesAreNotSentAgain(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 7, "x")
	s.store.Put(log[:4])
	r := s.room()
	ann := s.client("ann", frame.Proto)
	ann.resume()
	s.store.Put(log[:6])
	s.live(r, log[5]) // before the fifth
	s.live(r, log[4:6]...)
	require.Equal(t, []uint64{5, 6}, ann.seqs(2))
	s.live(r, log[4])
	s.live(r, log[5])
	ann.quiet()
	s.store.Put(log)
	s.live(r, log[6])
	require.Equal(t, []uint64{7}, ann.seqs(1))
	ann.quiet()
	require.InDelta(t, 1, testutil.ToFloat64(s.metrics.Gaps), 0, "only the first message left one")
	require.InDelta(t, 2, testutil.ToFloat64(s.metrics.Repeats), 0)
}

// Many clients that have missed much, each something else, get it in order and without a hole.
func TestManyMissedEventsComeInOrderToManyClients(t *testing.T) {
	s := newStage(t)
	const events = 3 * maxRecentEvents // more than memory keeps
	log := branch(nil, events, "x")
	s.store.Put(log)
	s.room()
	clients := make([]*client, 8)
	for i := range clients {
		clients[i] = s.client(fmt.Sprint("user", i), frame.JSON)
		clients[i].resume(position(log[100*i]))
	}
	for i, c := range clients {
		for seq := 100*i + 2; seq <= events; seq++ {
			require.Equal(t, []uint64{uint64(seq)}, c.seqs(1))
		}
		c.quiet()
	}
}

// A client that does not acknowledge is sent the events again, at growing intervals, and is closed at last.
func TestWhatIsNotAcknowledgedIsSentAgain(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 3, "x")
	s.store.Put(log)
	r := s.room()
	ann, bob := s.client("ann", frame.Proto), s.client("bob", frame.Proto)
	ann.resume()
	bob.resume()
	log = branch(log, 5, "x")
	s.store.Put(log)
	before := time.Now()
	s.live(r, log[3:]...)
	require.Equal(t, []uint64{4, 5}, ann.seqs(2))
	bob.seqs(2)
	require.True(t, bob.subscription().Acknowledge(5, 5, time.Now()))
	require.True(t, ann.subscription().Acknowledge(4, 0, time.Now()))

	s.sweep(before.Add(9 * time.Second))
	ann.quiet()
	now := time.Now()
	wait := s.hub.cfg.AckTimeout
	for range s.hub.cfg.AckTries {
		now = now.Add(wait + time.Second)
		s.sweep(now)
		require.Equal(t, []uint64{5}, ann.seqs(1), "only unacknowledged events")
		wait *= 2
	}
	bob.quiet()
	require.InDelta(t, s.hub.cfg.AckTries, testutil.ToFloat64(s.metrics.Retries), 0)
	s.sweep(now.Add(wait + time.Second))
	require.Equal(t, errcode.CloseNoAck, <-ann.closes)
}

// A resume is served from memory, from the store, and from both, and no seq is sent twice.
func TestAResumeIsServedFromMemoryAndTheStore(t *testing.T) {
	for _, recent := range []int{0, 1, 20, 700} {
		for _, has := range []int{1, 650, 705, 719} {
			s := newStage(t)
			log := branch(nil, 720, "x")
			s.store.Put(log[:len(log)-recent])
			r := s.room()
			s.client("ann", frame.Proto).resume()
			s.store.Put(log)
			s.live(r, log[len(log)-recent:]...)
			bob := s.client("bob", frame.Proto)
			bob.resume(position(log[has-1]))
			want := make([]uint64, 0, len(log))
			for seq := has + 1; seq <= len(log); seq++ {
				want = append(want, uint64(seq))
			}
			require.Equal(t, want, bob.seqs(len(want)), "%d in memory, the client has %d", recent, has)
			bob.quiet()
		}
	}
}

// Memory for recent events is bounded in total.
func TestRecentEventsAreBounded(t *testing.T) {
	s := newStage(t)
	s.hub.cfg.RecentBytes = 40_000
	log := branch(nil, 3, "x")
	s.store.Put(log)
	r := s.room()
	s.client("ann", frame.Proto).resume()
	log = branch(log, 500, "a text of some length that fills the memory")
	for _, event := range log[3:] {
		s.live(r, event)
	}
	require.LessOrEqual(t, s.hub.RecentBytes(), int64(40_000))
	require.GreaterOrEqual(t, len(r.recent), minRecentEvents)
	s.hub.Leave(s.hub.Room(groupID).subscriptions[0])
	require.Zero(t, s.hub.RecentBytes())
	require.Nil(t, s.hub.Room(groupID))
}

// The first subscription creates a room, subscribes on the bus and reads the head; the last one that leaves closes it.
func TestARoomLivesAsLongAsItsSubscriptions(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 3, "x")
	s.store.Put(log)
	ann, bob := s.client("ann", frame.Proto), s.client("bob", frame.JSON)
	ann.resume()
	bob.resume()
	require.Equal(t, 1, s.hub.Count())
	require.Contains(t, s.bus.subscribed, ids.Conversation(groupID))
	require.InDelta(t, 1, testutil.ToFloat64(s.metrics.Rooms), 0)
	s.hub.Leave(ann.subscription())
	s.hub.Leave(ann.subscription()) // a second call has no effect
	require.Equal(t, 1, s.hub.Count())
	s.hub.Leave(bob.subscription())
	require.Zero(t, s.hub.Count())
	require.Equal(t, []ids.Conversation{groupID}, s.bus.unsubscribed)
	require.InDelta(t, 0, testutil.ToFloat64(s.metrics.Rooms), 0)
}

// A room whose head cannot be read, or whose subscription is not in effect, is opened as soon as possible.
func TestARoomIsOpenedWhenItCanBe(t *testing.T) {
	for name, away := range map[string]func(s *stage, away bool){
		"the store": func(s *stage, away bool) { s.store.Set(func() { s.store.Down = away }) },
		"the bus": func(s *stage, away bool) {
			s.bus.mu.Lock()
			defer s.bus.mu.Unlock()
			s.bus.down = away
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			log := branch(nil, 5, "x")
			s.store.Put(log)
			away(s, true)
			ann := s.client("ann", frame.Proto)
			ann.subscribe([]*historyv1.Summary{{ConversationId: groupID, Head: 5, JoinedSeq: 1}}, position(log[2]))
			r := s.hub.Room(groupID)
			s.live(r, log[4]) // the event before it is not known yet
			ann.quiet()
			away(s, false)
			require.Equal(t, []uint64{4, 5}, ann.seqs(2))
		})
	}
}

// Live messages arrive through the bus; those that cannot be decoded, or belong to no room, are ignored.
func TestLiveMessagesComeThroughTheBus(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 3, "x")
	s.store.Put(log)
	ann := s.client("ann", frame.Proto)
	ann.resume()
	s.bus.mu.Lock()
	to := s.bus.subscribed[groupID]
	s.bus.mu.Unlock()
	log = branch(log, 4, "x")
	s.store.Put(log)
	to <- &nats.Msg{Subject: broker.LiveSubject(groupID), Data: []byte{0xff}}
	to <- &nats.Msg{Subject: broker.LiveSubject("g0123456789abcdefghijklmnoo")}
	data, err := (&brokerv1.Live{Events: log[3:], Worker: "w", CommittedNs: 1}).MarshalVT()
	require.NoError(t, err)
	to <- &nats.Msg{Subject: broker.LiveSubject(groupID), Data: data}
	require.Equal(t, []uint64{4}, ann.seqs(1))
	require.Contains(t, s.logs.String(), "cannot be decoded")
}

// What was queued to a sender is written by the conversation's shard.
func TestFlushSoon(t *testing.T) {
	s := newStage(t)
	ann := s.client("ann", frame.Proto)
	ann.link.Queue(ann.Answers.Frame(&clientv1.ServerFrame{Id: 7}))
	s.hub.FlushSoon(groupID, ann.link)
	require.Equal(t, uint64(7), ann.next().GetId())
}

// A receipt is pushed to every client that wants receipts, unless a newer one was.
func TestReceiptsArePushedInOrder(t *testing.T) {
	s := newStage(t)
	s.store.Put(branch(nil, 3, "x"))
	r := s.room()
	ann, bob := s.client("ann", frame.Proto), s.client("bob", frame.JSON)
	bob.Receipts = false
	ann.resume()
	bob.resume()
	for _, version := range []int64{5, 7, 7, 6, 8} {
		var dirty []Sender
		r.takeMessage(&brokerv1.Live{Receipt: &conversationv1.Receipt{ConversationId: groupID, Version: version}}, nil, &dirty)
		flushAll(dirty)
	}
	for _, version := range []int64{5, 7, 8} {
		require.Equal(t, version, ann.next().GetReceipt().GetVersion())
	}
	ann.quiet()
	bob.quiet()
}

// A heartbeat reports what has moved since the last one, once.
func TestABeatSaysWhatMoved(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 3, "x")
	s.store.Put(log)
	r := s.room()
	ann := s.client("ann", frame.Proto)
	ann.resume()
	subscription := ann.subscription()
	require.Equal(t, ids.Seq(0), subscription.Beat().Head, "the list had this head")
	log = branch(log, 4, "x")
	s.store.Put(log)
	s.live(r, log[3])
	ann.seqs(1)
	require.True(t, subscription.Acknowledge(4, 2, time.Now()))
	require.Equal(t, Beat{ConversationID: groupID, Acknowledged: true, Delivered: 4, Read: 2, Head: 4}, subscription.Beat())
	require.Equal(t, Beat{ConversationID: groupID, Delivered: 4, Read: 2}, subscription.Beat())
	require.Nil(t, subscription.Unfinished())
	require.Equal(t, uint64(4), subscription.Standing().GetAcknowledged())
	require.Equal(t, Beat{}, (&Subscription{}).Beat(), "the subscription has no room yet")
}

// Operators see the state of a room.
func TestARoomShowsWhatItHolds(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 3, "x")
	s.store.Put(log)
	r := s.room()
	s.client("ann", frame.Proto).resume()
	s.client("bob", frame.Proto).resume()
	log = branch(log, 5, "x")
	s.store.Put(log)
	s.live(r, log[3:]...)
	shown := r.Show(1)
	require.Equal(t, ids.Seq(5), shown.Head)
	require.Equal(t, ids.Seq(4), shown.RecentFrom)
	require.Equal(t, 2, shown.Recent)
	require.Len(t, shown.Subscriptions, 1)
	require.Equal(t, 1, shown.More)
	require.Len(t, s.hub.Waiting(), len(s.hub.shards))
}
