package room

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// kept counts the events that a room holds, and their encodings.
func kept(r *Room) (events, encodings int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.recent {
		for _, f := range e.frames {
			if f != nil {
				encodings++
			}
		}
	}
	return len(r.recent), encodings
}

// A quiet room drops encodings once all clients have the events, and the events after a while. A client that returns then is sent
// everything from history.
func TestAQuietRoomKeepsNothing(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 3, "a")
	s.store.Put(log)
	ann, bob := s.client("ann", frame.Proto), s.client("bob", frame.Proto)
	ann.resume()
	bob.resume()
	r := s.hub.Room(groupID)
	log = branch(log, 5, "a")
	s.store.Put(log)
	s.live(r, log[3:]...)
	require.Equal(t, []uint64{4, 5}, ann.seqs(2))
	require.Equal(t, []uint64{4, 5}, bob.seqs(2))
	now := time.Now()
	s.sweep(now)
	events, encodings := kept(r)
	require.Equal(t, []int{2, 2}, []int{events, encodings}, "the clients have not acknowledged them")

	require.True(t, ann.subscription().Acknowledge(5, 0, now))
	s.sweep(now)
	_, encodings = kept(r)
	require.Equal(t, 2, encodings, "a client has not acknowledged them")

	require.True(t, bob.subscription().Acknowledge(5, 0, now))
	s.sweep(now)
	events, encodings = kept(r)
	require.Equal(t, []int{2, 0}, []int{events, encodings}, "a client that returns soon is served from memory")
	require.Positive(t, s.hub.RecentBytes())

	s.sweep(now.Add(eventsRest + time.Second))
	events, _ = kept(r)
	require.Zero(t, events)
	require.Zero(t, s.hub.RecentBytes())
	require.Nil(t, r.recent)

	late := s.client("late", frame.Proto)
	late.resume(position(log[2]))
	require.Equal(t, []uint64{4, 5}, late.seqs(2))
	log = branch(log, 6, "a")
	s.store.Put(log)
	s.live(r, log[5])
	for _, c := range []*client{ann, bob, late} {
		require.Equal(t, []uint64{6}, c.seqs(1))
	}
	require.Equal(t, ids.Seq(6), r.head)
}

// Encodings are not kept for clients that do not acknowledge; the events are, because they will be sent again.
func TestUnacknowledgedEventsAreKept(t *testing.T) {
	s := newStage(t)
	s.hub.cfg.AckTimeout = time.Hour
	log := branch(nil, 3, "a")
	s.store.Put(log)
	ann := s.client("ann", frame.Proto)
	ann.resume()
	r := s.hub.Room(groupID)
	log = branch(log, 4, "a")
	s.store.Put(log)
	s.live(r, log[3])
	require.Equal(t, []uint64{4}, ann.seqs(1))
	now := time.Now()
	s.sweep(now.Add(encodingsRest))
	events, encodings := kept(r)
	require.Equal(t, []int{1, 0}, []int{events, encodings})
	s.sweep(now.Add(2 * eventsRest))
	events, _ = kept(r)
	require.Equal(t, 1, events)
	s.sweep(now.Add(3 * time.Hour)) // sends it again
	require.Equal(t, []uint64{4}, ann.seqs(1))
}

// A heartbeat forwards nothing that the store knows already: otherwise every client that connects would have all its conversations
// loaded by their owners.
func TestAStoredPositionIsNotForwarded(t *testing.T) {
	s := newStage(t)
	s.store.Put(branch(nil, 3, "a"))
	for delivered, want := range map[uint64]bool{0: true, 2: true, 3: false} {
		ann := s.client("ann", frame.Proto)
		list, err := s.store.ListConversations(t.Context(), &historyv1.ListConversationsRequest{})
		require.NoError(t, err)
		list.GetConversations()[0].Cursor = &conversationv1.Cursor{UserId: "ann", DeliveredSeq: delivered}
		ann.subscribe(list.GetConversations())
		beat := ann.subscription().Beat()
		require.Equal(t, want, beat.Acknowledged, "the store has %d", delivered)
		require.Equal(t, ids.Seq(3), beat.Delivered)
		require.False(t, ann.subscription().Beat().Acknowledged)
		s.hub.Leave(ann.subscription())
	}
}
