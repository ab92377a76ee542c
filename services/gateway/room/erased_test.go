package room

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"
)

// Deleted content must not be sent from a gateway's memory: a client that returns after a deletion gets what history has
// now.
func TestDeletedContentIsNotServedFromMemory(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 4, "hello")
	s.store.Put(log[:3])
	r := s.room()
	s.client("ann", frame.Proto).resume(position(log[2]))
	s.live(r, log[3])
	require.NotEmpty(t, r.recent)

	deletion := deletionOf(t, log[3])
	erased := proto.CloneOf(log[3])
	chain.Erase(erased)
	s.store.Put(append(append([]*conversationv1.Event{}, log[:3]...), erased, deletion))
	s.live(r, deletion)
	for _, e := range r.recent {
		require.GreaterOrEqual(t, e.event.GetSeq(), deletion.GetSeq(), "the room keeps erased content")
	}

	bob := s.client("bob", frame.Proto)
	bob.resume(position(log[2]))
	event := bob.next().GetEvent()
	require.Equal(t, erased.GetSeq(), event.GetSeq())
	require.Nil(t, event.GetBody())
	require.Equal(t, deletion.GetSeq(), bob.next().GetEvent().GetSeq())
}

// A page that was read before a deletion must not be kept after it.
func TestAPageFromBeforeADeletionIsNotKept(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 4, "hello")
	s.store.Put(log)
	r := s.room()
	s.live(r, deletionOf(t, log[3])) // the store answers as if the read had begun before the deletion was committed
	_, err := r.load(2, "ann")
	require.NoError(t, err)
	r.mu.Lock()
	defer r.mu.Unlock()
	require.Equal(t, ids.Seq(5), r.firstRecentLocked())
}

func deletionOf(t *testing.T, message *conversationv1.Event) *conversationv1.Event {
	t.Helper()
	body, err := proto.Marshal(&conversationv1.Body{Action: &conversationv1.Body_Delete{Delete: &conversationv1.Delete{Target: message.GetSeq()}}})
	require.NoError(t, err)
	deletion := &conversationv1.Event{
		ConversationId: message.GetConversationId(), Seq: message.GetSeq() + 1, TimeMs: message.GetTimeMs() + 1, Sender: message.GetSender(),
		CommandId: "0192f3c0-0000-7000-8000-00000000dead", Kind: conversationv1.EventKind_EVENT_KIND_DELETED,
		Body: body, Salt: make([]byte, chain.SaltSize), PrevHash: message.GetHash(),
	}
	chain.Seal(deletion)
	return deletion
}
