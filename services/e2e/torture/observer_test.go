package torture

import (
	"testing"

	"github.com/stretchr/testify/require"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
)

// An observer accepts each membership once, from its first event to its last, and reports everything else.
func TestAnObserverChecksMemberships(t *testing.T) {
	attached := func(seq uint64) *clientv1.ServerFrame {
		return &clientv1.ServerFrame{Message: &clientv1.ServerFrame_Attached{Attached: &clientv1.Attached{
			Conversation: &clientv1.Conversation{ConversationId: "c", JoinedSeq: seq},
		}}}
	}
	detached := func(last uint64) *clientv1.ServerFrame {
		return &clientv1.ServerFrame{Message: &clientv1.ServerFrame_Detached{Detached: &clientv1.Detached{ConversationId: "c", Last: last}}}
	}
	for name, c := range map[string]struct {
		frames []any // a number is an event
		broken string
	}{
		"two memberships":            {[]any{attached(2), 2, 3, detached(3), attached(4), 4, detached(4)}, ""},
		"an event again":             {[]any{attached(2), 2, 3, 2, 3, detached(3)}, ""},
		"attached twice":             {[]any{attached(2), 2, attached(2)}, "not detached"},
		"the next without an end":    {[]any{attached(2), 2, 3, attached(5)}, "not detached"},
		"a membership twice":         {[]any{attached(2), 2, 3, detached(3), attached(2)}, "twice"},
		"a membership without start": {[]any{detached(3)}, "without having been attached"},
		"ended twice":                {[]any{attached(2), 2, 3, detached(3), detached(3)}, "detached twice"},
		"ended too early":            {[]any{attached(2), 2, detached(3)}, "having sent up to 2"},
		"events after the end":       {[]any{attached(2), 2, 3, 4, detached(3)}, "having sent up to 4"},
	} {
		t.Run(name, func(t *testing.T) {
			l := &link{observer: &observer{has: map[string]uint64{}}, at: map[string]uint64{}, gone: map[string]bool{}}
			var err error
			for _, step := range c.frames {
				require.NoError(t, err)
				switch one := step.(type) {
				case int:
					err = l.follow("c", uint64(one), uint64(one))
				case *clientv1.ServerFrame:
					err = l.take(t.Context(), one, nil)
				}
			}
			if c.broken == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, errBroken)
			require.ErrorContains(t, err, c.broken)
		})
	}
}
