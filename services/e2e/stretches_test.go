package e2e_test

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"

	"github.com/runnelhq/runnel/pkg/frame"
)

// A connected user who is added, is sent a message and is removed, back to back, is told of each of these memberships once and
// completely.
func TestShortMembershipsAreAllTold(t *testing.T) {
	const rounds = 50
	s := start(t, nil)
	ann, bob := s.login("ann", frame.Proto), s.login("bob", frame.JSON)
	id := ann.ask(submit("", group("cem"))).GetOutcome().GetConversationId()
	var want []string
	for round := range rounds {
		for i, f := range []*clientv1.ClientFrame{submit(id, addBob()), submit(id, text("during")), submit(id, removeBob())} {
			f.Id = uint64(1000 + 3*round + i) // all three are under way at a time
			ann.send(f)
		}
		last := uint64(1000 + 3*round + 2)
		outcome := ann.until(func(f *clientv1.ServerFrame) bool { return f.GetId() == last }).GetOutcome()
		require.Nil(t, outcome.GetError())
		seq := outcome.GetSeq()
		want = append(want, fmt.Sprint("attached ", seq-2), strconv.FormatUint(seq-2, 10), strconv.FormatUint(seq-1, 10), strconv.FormatUint(seq, 10), fmt.Sprint("detached ", seq))
	}
	var got []string
	for len(got) < len(want) {
		f, err := bob.receive()
		require.NoError(t, err)
		switch {
		case f.GetAttached() != nil:
			got = append(got, fmt.Sprint("attached ", f.GetAttached().GetConversation().GetJoinedSeq()))
		case f.GetDetached() != nil:
			got = append(got, fmt.Sprint("detached ", f.GetDetached().GetLast()))
		case f.GetEvent() != nil:
			got = append(got, strconv.FormatUint(f.GetEvent().GetSeq(), 10))
		case f.GetHidden() != nil:
			got = append(got, "hidden")
		}
		require.Equal(t, want[:len(got)], got)
	}
}
