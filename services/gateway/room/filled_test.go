package room

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/frame"

	"github.com/runnelhq/runnel/services/gateway/wire"
)

// Clients that return at the same event are sent the same messages, made once for each encoding. The next sweep frees them.
func TestClientsAtTheSameEventShareMessages(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 20, "x")
	s.store.Put(log)
	r := s.room()
	var page filledPage
	entries := newEntries(log[10:])
	for _, encoding := range []wire.Encoding{wire.WebSocketProto, wire.WebSocketJSON} {
		first := page.messagesOf(encoding, entries)
		require.Same(t, &first[0][0], &page.messagesOf(encoding, entries)[0][0])
		require.NotSame(t, &first[0][0], &page.messagesOf(encoding, newEntries(log[10:]))[0][0], "the room may have been reloaded")
		require.Len(t, page.messagesOf(encoding, entries[:5])[0], len(page.messagesOf(encoding, newEntries(log[10:15]))[0]))
	}
	for i := range 3 {
		c := s.client(fmt.Sprint("user", i), frame.Proto)
		c.resume(position(log[9]))
		require.Equal(t, []uint64{11, 12, 13, 14, 15, 16, 17, 18, 19, 20}, c.seqs(10))
	}
	require.NotNil(t, r.filled.first)
	s.sweep(time.Now())
	r.mu.Lock()
	defer r.mu.Unlock()
	require.Zero(t, r.filled)
}
