package dedupe

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/runnelhq/runnel/pkg/ids"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/delivery/source"
)

const minute = 60_000 // in milliseconds of stream time

var (
	forbidden = &conversationv1.Error{Code: conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN}
	key       = keyOf("1")
)

func keyOf(command string) source.CommandKey {
	return source.CommandKey{Conversation: "g", Sender: "eve", Command: ids.Command(command)}
}

// refusal is a refusal of a command in an attempt at a stream time.
func refusal(key source.CommandKey, attempt uint32, timeMs int64) *historyv1.Refusal {
	return (&Refusal{Key: key, Attempt: attempt, TimeMs: timeMs, Err: forbidden, Commitment: []byte{1}}).Proto()
}

func remembering(limit int, list ...*historyv1.Refusal) *Refusals {
	r := NewRefusals(limit)
	r.Add(list, 0)
	return r
}

// A refusal answers its own attempt and lower ones, for ten minutes of stream time.
func TestFind(t *testing.T) {
	r := remembering(10, refusal(key, 1, 0))
	require.NotNil(t, r.Find(key, 0, 0))
	require.NotNil(t, r.Find(key, 1, 10*minute))
	require.Nil(t, r.Find(key, 2, 0), "the client asked again")
	require.Nil(t, r.Find(key, 1, 10*minute+1), "too old, although it is still in memory")
	require.Nil(t, r.Find(keyOf("2"), 0, 0))
	require.Nil(t, NewRefusals(10).Find(key, 0, 0))
}

// Nothing of a refusal is lost on the way to the store and back.
func TestRefusalSurvivesTheStore(t *testing.T) {
	stored := refusal(key, 3, 5*minute)
	require.True(t, proto.Equal(&historyv1.Refusal{
		Command: key.Proto(), Attempt: 3, TimeMs: 5 * minute, Error: forbidden, Commitment: []byte{1},
	}, stored))
	found := remembering(10, stored).Find(key, 3, 5*minute)
	require.Equal(t, &Refusal{Key: key, Attempt: 3, TimeMs: 5 * minute, Err: forbidden, Commitment: []byte{1}}, found)
}

// A refusal that answers a copy must be remembered for six minutes more.
func TestStale(t *testing.T) {
	r := &Refusal{TimeMs: 20 * minute}
	require.False(t, r.Stale(20*minute))
	require.False(t, r.Stale(24*minute))
	require.True(t, r.Stale(24*minute+1))
}

// Of several refusals of a command the one of the highest attempt holds, and of equal attempts the newest. One that is too old
// gives way to any.
func TestTheLatestRefusalHolds(t *testing.T) {
	for name, c := range map[string]struct {
		earlier, later *historyv1.Refusal
		holds          *historyv1.Refusal
	}{
		"higher attempt":             {refusal(key, 1, 0), refusal(key, 2, minute), refusal(key, 2, minute)},
		"same attempt":               {refusal(key, 1, 0), refusal(key, 1, minute), refusal(key, 1, minute)},
		"lower attempt":              {refusal(key, 1, 0), refusal(key, 0, minute), refusal(key, 1, 0)},
		"lower attempt, at the end":  {refusal(key, 1, 0), refusal(key, 0, 10*minute), refusal(key, 1, 0)},
		"lower attempt, too late":    {refusal(key, 1, 0), refusal(key, 0, 10*minute+1), refusal(key, 0, 10*minute+1)},
		"refusal of another command": {refusal(key, 1, 0), refusal(keyOf("2"), 2, minute), refusal(key, 1, 0)},
	} {
		t.Run(name, func(t *testing.T) {
			r := remembering(10, c.earlier, c.later)
			require.True(t, proto.Equal(c.holds, r.Latest[key].Proto()))
			require.Equal(t, 2, r.Size(), "both count against the limit")
		})
	}
}

// A refusal is forgotten once it is older than ten minutes by the stream's time, and a newer one of its command stays.
func TestForget(t *testing.T) {
	r := remembering(10, refusal(key, 0, 0), refusal(keyOf("2"), 0, 0), refusal(key, 1, minute))
	r.Add(nil, 10*minute)
	require.Equal(t, 3, r.Size())
	r.Add(nil, 10*minute+1)
	require.Equal(t, 1, r.Size())
	require.Len(t, r.Latest, 1)
	require.EqualValues(t, 1, r.Latest[key].Attempt)
	r.Add(nil, 11*minute+1)
	require.Zero(t, r.Size())
	require.Empty(t, r.Latest)
}

// The refusals of the store come in any order of time.
func TestLoad(t *testing.T) {
	r := NewRefusals(10)
	r.Load([]*historyv1.Refusal{refusal(key, 3, 9*minute), refusal(key, 2, 5*minute), refusal(keyOf("2"), 0, 7*minute)}, 9*minute)
	require.EqualValues(t, 3, r.Find(key, 2, 9*minute).Attempt)
	r.Add(nil, 15*minute+1)
	require.Equal(t, 2, r.Size(), "the oldest is forgotten first")
	r.Load([]*historyv1.Refusal{refusal(keyOf("3"), 0, 0)}, 15*minute)
	require.Nil(t, r.Find(keyOf("3"), 0, 15*minute))
}

// The limit counts what holds at a stream time, in memory and in the batch.
func TestFits(t *testing.T) {
	r := remembering(2, refusal(key, 0, 0))
	batch := func(times ...int64) (list []*historyv1.Refusal) {
		for _, ms := range times {
			list = append(list, refusal(keyOf("2"), 0, ms))
		}
		return list
	}
	require.True(t, r.Fits(0, nil))
	require.False(t, r.Fits(0, batch(0)))
	require.False(t, r.Fits(10*minute, batch(10*minute)), "the one in memory still holds")
	require.True(t, r.Fits(10*minute+1, batch(10*minute)))
	require.False(t, r.Fits(10*minute+1, batch(10*minute, 10*minute)))
	require.True(t, r.Fits(20*minute, batch(5*minute, 20*minute)), "one of the batch is too old by then")
	require.False(t, r.Fits(20*minute, batch(10*minute, 20*minute)))
	r.Limit = 1
	require.False(t, r.Fits(10*minute, nil))
	require.True(t, r.Fits(10*minute+1, nil))
	require.False(t, NewRefusals(0).Fits(0, nil))
}

// However time passes, memory holds what is not too old and at most as much again that waits to be given back.
func TestMemoryIsBoundedByWhatHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := NewRefusals(1000)
		var now int64
		var times []int64
		for i := range rapid.IntRange(1, 200).Draw(t, "refusals") {
			now += int64(rapid.IntRange(0, 3*minute).Draw(t, "passed"))
			r.Add([]*historyv1.Refusal{refusal(keyOf(string(rune('a'+i%7))), uint32(i%3), now)}, now)
			times = append(times, now)
			for now-times[0] > 10*minute {
				times = times[1:]
			}
			require.Equal(t, len(times), r.Size())
			require.LessOrEqual(t, len(r.byTime), 2*r.Size())
			for at, old := range r.byTime {
				require.Equal(t, at < r.begin, old == nil, "what is forgotten is not referred to")
			}
		}
	})
}
