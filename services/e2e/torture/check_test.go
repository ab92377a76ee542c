package torture

import (
	"encoding/hex"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/chain"
)

const conflict = conversationv1.ErrorCode_ERROR_CODE_IDEMPOTENCY_CONFLICT

var (
	ann, bob, cem = Reader{"ann", "phone"}, Reader{"bob", "phone"}, Reader{"cem", "phone"}
	// late is cem's laptop, which was off while cem was out of the group.
	late = Reader{"cem", "laptop"}
	eye  = Reader{"bob", "observer"}
)

// good is a small history in which every promise was kept:
//
//	1 ann creates the group with bob and cem   4 ann removes cem   6 ann adds cem
//	2 ann writes   3 bob writes                5 ann writes        7 bob writes
func good(t *testing.T) (History, Content, string) {
	t.Helper()
	h := History{Attempts: map[Key]Attempt{}, Shown: map[Reader][]Item{}, Observed: map[Reader][]Item{}}
	k := newKeeper(t)
	orders := map[string]int{}
	for n, step := range []struct {
		sender string
		body   *conversationv1.Body
	}{
		{"ann", group("group", "bob", "cem")},
		{"ann", message("one")},
		{"bob", message("two")},
		{"ann", remove("cem")},
		{"ann", message("three")},
		{"ann", add("cem")},
		{"bob", message("four")},
	} {
		event := k.do(step.sender, step.body)
		orders[step.sender]++
		key := keyOf(event)
		h.Attempts[key] = Attempt{Key: key, Body: encoded(step.body), Device: "phone", Order: orders[step.sender]}
		at := time.Unix(int64(100*n), 0)
		h.Answers = append(h.Answers, Answer{Key: key, Asked: at, At: at, Seq: event.GetSeq()})
	}
	c, id, log := k.content(), k.id, k.log
	h.Fed = k.fed()
	attached := func(seq uint64) Item { return Item{Kind: ItemAttached, Conversation: id, First: seq} }
	event := func(seq uint64) Item {
		return Item{Kind: ItemEvent, Conversation: id, First: seq, Hash: hex.EncodeToString(log[seq-1].GetHash()), Content: digest(log[seq-1].GetBody())}
	}
	all := []Item{attached(1), event(1), event(2), event(3), event(4), event(5), event(6), event(7)}
	h.Shown[ann], h.Shown[bob] = all, slices.Clone(all)
	h.Shown[cem] = []Item{
		attached(1), event(1), event(2), event(3), event(4), {Kind: ItemDetached, Conversation: id, Last: 4}, attached(6), event(6), event(7),
	}
	h.Shown[late] = []Item{
		attached(1), event(1), event(2),
		{Kind: ItemReopened, Conversation: id},
		attached(6), event(3), event(4),
		{Kind: ItemHidden, Conversation: id, First: 5, Last: 5},
		event(6), event(7),
	}
	h.Observed[eye] = []Item{event(3), event(3), event(4)}
	first, at := h.Answers[1], time.Unix(10_000, 0)
	h.Answers = append(h.Answers,
		Answer{Key: first.Key, Asked: at, At: at, Seq: first.Seq, Repeated: true, Again: true},
		Answer{Key: first.Key, Asked: at, At: at, Code: conflict, Again: true, OtherBody: true},
	)
	return h, c, id
}

func TestAGoodHistoryPasses(t *testing.T) {
	h, c, _ := good(t)
	require.Empty(t, Check(h, c))
}

func TestEveryBrokenPromiseIsFound(t *testing.T) {
	for name, test := range map[string]struct {
		invariant string
		spoil     func(h *History, c *Content, id string)
	}{
		"an acknowledged command is not stored": {"I1", func(_ *History, c *Content, id string) {
			c.Logs[id] = c.Logs[id][:6]
		}},
		"an acknowledged command is stored elsewhere": {"I1", func(h *History, _ *Content, _ string) {
			h.Answers[2].Seq = 4
		}},
		"a seq is missing": {"I2", func(_ *History, c *Content, id string) {
			c.Logs[id] = slices.Delete(c.Logs[id], 2, 3)
		}},
		"the head is beyond the log": {"I2", func(_ *History, c *Content, id string) {
			c.Heads[id] = Head{8, c.Heads[id].Hash, c.Heads[id].Position}
		}},
		"a conversation lost all its events": {"I2", func(_ *History, c *Content, _ string) {
			c.Heads["gone"] = Head{Seq: 1}
		}},
		"a sender's messages are swapped": {"I3", func(h *History, c *Content, id string) {
			one, three := keyOf(c.Logs[id][1]), keyOf(c.Logs[id][4])
			a, b := h.Attempts[one], h.Attempts[three]
			a.Order, b.Order = b.Order, a.Order
			h.Attempts[one], h.Attempts[three] = a, b
		}},
		"a refused command is stored": {"I13", func(h *History, _ *Content, _ string) {
			h.Answers[3].Seq, h.Answers[3].Code = 0, conversationv1.ErrorCode_ERROR_CODE_CONFLICT
		}},
		"something is stored that nobody sent": {"I4", func(h *History, c *Content, id string) {
			delete(h.Attempts, keyOf(c.Logs[id][6]))
		}},
		"something else is stored than was sent": {"I4", func(h *History, c *Content, id string) {
			a := h.Attempts[keyOf(c.Logs[id][6])]
			a.Body = encoded(message("what bob really wrote"))
			h.Attempts[a.Key] = a
		}},
		"a command is stored twice": {"I5", func(_ *History, c *Content, id string) {
			again := proto.CloneOf(c.Logs[id][6])
			again.Seq = 8
			c.Logs[id] = append(c.Logs[id], again)
		}},
		"a seq is stored twice": {"I5", func(_ *History, c *Content, id string) {
			other := proto.CloneOf(c.Logs[id][6])
			other.CommandId = "0192f3c0-0000-7000-8000-ffffffffffff"
			c.Logs[id] = append(c.Logs[id], other)
		}},
		"a reader misses the last event": {"I6", func(h *History, _ *Content, _ string) {
			h.Shown[bob] = h.Shown[bob][:7]
		}},
		"a reader has a hole": {"I6", func(h *History, _ *Content, _ string) {
			h.Shown[bob] = slices.Delete(h.Shown[bob], 4, 5)
		}},
		"a reader is shown an event twice": {"I6", func(h *History, _ *Content, _ string) {
			h.Shown[bob] = slices.Insert(h.Shown[bob], 4, h.Shown[bob][3])
		}},
		"a reader is shown events out of order": {"I6", func(h *History, _ *Content, _ string) {
			h.Shown[bob][3], h.Shown[bob][4] = h.Shown[bob][4], h.Shown[bob][3]
		}},
		"a reader is shown what is not stored": {"I6", func(h *History, _ *Content, id string) {
			h.Shown[bob] = append(h.Shown[bob], Item{Kind: ItemEvent, Conversation: id, First: 8})
		}},
		"a reader is shown other content than is stored": {"I6", func(h *History, _ *Content, _ string) {
			h.Shown[bob][3].Hash = "00"
		}},
		"an observer is shown other content than is stored": {"I6", func(h *History, _ *Content, _ string) {
			h.Observed[eye][0].Hash = "00"
		}},
		"a reader is denied what they may see": {"I6", func(h *History, _ *Content, _ string) {
			h.Shown[late][7].First = 4
		}},
		"a reader is shown another body than was sent": {"I6", func(h *History, _ *Content, _ string) {
			h.Shown[bob][3].Content = digest([]byte("x"))
		}},
		"a reader is shown as erased what is stored": {"I6", func(h *History, _ *Content, _ string) {
			h.Observed[eye][0].Content = ""
		}},
		"a member is never told": {"I6", func(h *History, _ *Content, _ string) {
			h.Shown[bob] = nil
		}},
		"a detachment comes too early": {"I6", func(h *History, _ *Content, _ string) {
			h.Shown[cem] = slices.Delete(h.Shown[cem], 4, 5)
		}},
		"a former member is never told": {"I6", func(h *History, c *Content, id string) {
			c.Logs[id], c.Heads[id] = c.Logs[id][:5], Head{Seq: 5, Hash: c.Logs[id][4].GetHash()}
			h.Shown[late] = h.Shown[late][:7]
		}},
		"a repetition gives another seq": {"I7", func(h *History, _ *Content, _ string) {
			h.Answers[7].Seq = 3
		}},
		"a repetition is refused": {"I7", func(h *History, _ *Content, _ string) {
			h.Answers[7].Seq, h.Answers[7].Code = 0, conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND
		}},
		"a repetition is not said to be one": {"I7", func(h *History, _ *Content, _ string) {
			h.Answers[7].Repeated = false
		}},
		"another body is taken": {"I7", func(h *History, _ *Content, _ string) {
			h.Answers[8].Code, h.Answers[8].Seq = 0, 2
		}},
		"another body is refused for another reason": {"I7", func(h *History, _ *Content, _ string) {
			h.Answers[8].Code = conversationv1.ErrorCode_ERROR_CODE_INVALID
		}},
		"somebody is shown what came after they left": {"I8", func(h *History, _ *Content, _ string) {
			h.Shown[cem] = slices.Insert(h.Shown[cem], 5, h.Shown[bob][5])
		}},
		"an observer is shown what was before they joined": {"I8", func(h *History, _ *Content, _ string) {
			h.Observed[Reader{"cem", "observer"}] = []Item{h.Shown[bob][5]}
		}},
		"somebody is shown a conversation of others": {"I8", func(h *History, _ *Content, _ string) {
			h.Shown[Reader{"eve", "phone"}] = h.Shown[bob][:2]
		}},
		"a body is changed": {"chain", func(h *History, c *Content, id string) {
			c.Logs[id][1].Body = encoded(message("One"))
		}},
		"the head's hash is another": {"chain", func(_ *History, c *Content, id string) {
			c.Heads[id] = Head{7, make([]byte, chain.Size), c.Heads[id].Position}
		}},
		"content is gone that nothing erased": {"erasure", func(_ *History, c *Content, id string) {
			chain.Erase(c.Logs[id][1])
		}},
		"the name is another": {"I11", func(_ *History, c *Content, id string) {
			c.Views[id].Name = "another"
		}},
		"a member is missing": {"I11", func(_ *History, c *Content, id string) {
			delete(c.Views[id].Members, "bob")
		}},
		"a membership begins at another position": {"I11", func(_ *History, c *Content, id string) {
			c.Stays[id][0].Began.Sequence++
		}},
		"a membership ends at another position": {"I11", func(_ *History, c *Content, id string) {
			at := slices.IndexFunc(c.Stays[id], func(s Stay) bool { return s.Last > 0 })
			c.Stays[id][at].Ended.Epoch++
		}},
		"a past membership is gone": {"I11", func(_ *History, c *Content, id string) {
			c.Stays[id] = slices.DeleteFunc(c.Stays[id], func(s Stay) bool { return s.Last > 0 })
		}},
		"a view row is of nothing in the log": {"I11", func(_ *History, c *Content, id string) {
			c.Views[id].Messages[2] = &historyv1.MessageRow{Seq: 2, EditSeq: 3}
		}},
		"a reaction is of nothing in the log": {"I11", func(_ *History, c *Content, id string) {
			c.Views[id].Reactions[Reaction{2, "bob", "x"}] = 3
		}},
		"the feed leaves an event out": {"I12", func(h *History, _ *Content, _ string) {
			h.Fed[3] = slices.Delete(h.Fed[3], 4, 5)
		}},
		"the feed gives another event": {"I12", func(h *History, _ *Content, _ string) {
			h.Fed[3][4].Hash = "00"
		}},
		"the feed gives what is not stored": {"I12", func(h *History, _ *Content, id string) {
			h.Fed[3] = append(h.Fed[3], Fed{Position{5, 99}, id, 8, "00"})
		}},
		"the feed gives two events at one position": {"I12", func(h *History, _ *Content, _ string) {
			h.Fed[3] = append([]Fed{{h.Fed[3][0].Position, "other", 1, "00"}}, h.Fed[3]...)
		}},
		"a position is there twice": {"positions", func(_ *History, c *Content, _ string) {
			c.Places[3].Position = c.Places[2].Position
		}},
		"positions fall": {"positions", func(_ *History, c *Content, _ string) {
			c.Places[3], c.Places[2] = c.Places[2], c.Places[3]
		}},
		"a conversation is in two partitions": {"positions", func(_ *History, c *Content, _ string) {
			c.Places[6].Partition++
		}},
		"the head's position is another": {"positions", func(_ *History, c *Content, id string) {
			c.Heads[id] = Head{7, c.Heads[id].Hash, Position{5, 1}}
		}},
		"a watermark goes back": {"watermark", func(_ *History, c *Content, _ string) {
			c.Regressions = []string{"the watermark of partition 3 went back from (1, 9) to (1, 8)"}
		}},
		"a command is put aside": {"dead letter", func(_ *History, c *Content, _ string) {
			c.DeadLetters = []string{"partition 3: too strange"}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			h, c, id := good(t)
			test.spoil(&h, &c, id)
			report := Report{Violations: Check(h, c)}
			require.Contains(t, report.Invariants(), test.invariant, "%v", report.Violations)
		})
	}
}

func TestWhatDoesNotSurviveIsFound(t *testing.T) {
	h, _, _ := good(t)
	h.Answers = h.Answers[:5] // as far as it had come when the power failed
	keep := func(events int) Content {
		k := newKeeper(t)
		for _, event := range h.Answers[:events] {
			body := &conversationv1.Body{}
			require.NoError(t, body.UnmarshalVT(h.Attempts[event.Key].Body))
			k.do(event.Key.Sender, body)
		}
		return k.content()
	}
	require.Empty(t, CheckSurvival(h, keep(5)), "what was not acknowledged may be gone")
	require.Equal(t, "I1", (&Report{Violations: CheckSurvival(h, keep(4))}).Invariants())
	require.NotEmpty(t, CheckSurvival(h, Content{}), "a database that has come back empty")
}

// A refusal counts for its attempt: a client that received it may ask anew, and what was given anew has no answer yet.
func TestACommandThatIsGivenAnewAfterItsRefusalMayBeStored(t *testing.T) {
	h, c, _ := good(t)
	key := h.Answers[3].Key
	refusal := h.Answers[3]
	refusal.Seq, refusal.Code = 0, conversationv1.ErrorCode_ERROR_CODE_CONFLICT
	h.Answers = slices.Insert(h.Answers, 3, refusal)
	h.Answers[4].Attempt = 1
	attempt := h.Attempts[key]
	attempt.Newest = 1
	h.Attempts[key] = attempt
	require.Empty(t, Check(h, c))
	h.Answers = slices.Delete(h.Answers, 4, 5)
	require.Empty(t, Check(h, c), "no answer came to the second attempt")
	h.Answers[3].Attempt = 1
	require.Equal(t, "I13", (&Report{Violations: Check(h, c)}).Invariants())
}

func TestTheRecordSeesARefusalThatWasNotFinal(t *testing.T) {
	r := NewRecord()
	key := Key{"g", "ann", "1"}
	r.Answered(Answer{Key: key, Code: conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND})
	r.Answered(Answer{Key: key, Code: conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND})
	r.Answered(Answer{Key: key, Seq: 4, Attempt: 1})
	require.Empty(t, r.Violations())
	r.Answered(Answer{Key: key, Seq: 4})
	require.Equal(t, "I13", r.Violations()[0].Invariant)
}

func TestTheRecordSeesARefusalThatNobodyDeserves(t *testing.T) {
	r := NewRecord()
	r.Answered(Answer{Key: Key{"g", "ann", "1"}, Code: conversationv1.ErrorCode_ERROR_CODE_INVALID})
	require.Equal(t, "judgement", r.Violations()[0].Invariant)
}

func TestNothingConflictsWithWhatWasErased(t *testing.T) {
	h, c, id := good(t)
	other := &h.Answers[len(h.Answers)-1]
	other.Code, other.Seq, other.Repeated = 0, 2, true
	require.Equal(t, "I7", (&Report{Violations: CheckRepeats(h, c)}).Invariants())
	chain.Erase(c.Logs[id][1])
	require.Empty(t, CheckRepeats(h, c))
	other.Seq = 3
	require.NotEmpty(t, CheckRepeats(h, c), "it must be the first outcome")
}

func TestMembershipsFollowFromTheLog(t *testing.T) {
	_, c, id := good(t)
	require.Equal(t, map[string][]Span{"ann": {{1, 0}}, "bob": {{1, 0}}, "cem": {{1, 4}, {6, 0}}}, Memberships(c)[id])
}

func TestTheRecordSeesACommandCommittedTwiceAtOnce(t *testing.T) {
	r := NewRecord()
	key := Key{"g", "ann", "1"}
	r.Answered(Answer{Key: key, Seq: 4})
	r.Answered(Answer{Key: key, Seq: 4, Repeated: true})
	require.Empty(t, r.Violations())
	r.Answered(Answer{Key: key, Seq: 9})
	<-r.Broken()
	require.Equal(t, "I7", r.Violations()[0].Invariant)
}

func TestWaitsAreThoseOfAFaultAlone(t *testing.T) {
	at := func(s float64) time.Time { return time.Unix(1000, int64(s*1e9)) }
	h := History{
		Faults: []Interval{{"kill delivery", at(0), at(1)}, {"pause nats", at(10), at(12)}, {"kill gateway", at(11), at(12)}},
		Answers: []Answer{
			{Asked: at(0.5), At: at(2.5), Seq: 1},
			{Asked: at(0.6), At: at(10.5), Seq: 2}, // another fault came before it was answered
			{Asked: at(3), At: at(9), Seq: 3},      // given long after the fault
			{Asked: at(10.1), At: at(10.9), Seq: 4},
			{Asked: at(11.1), At: at(11.2), Seq: 5},
		},
	}
	var r Report
	r.finish(nil, h, time.Minute)
	require.Equal(t, map[string]int{"kill delivery": 1, "pause nats": 1, "kill gateway": 1}, r.Faults)
	require.Equal(t, map[string]float64{"kill delivery": 2, "pause nats": 0.8}, r.Waits)
}
