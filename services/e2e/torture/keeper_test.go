package torture

import (
	"encoding/hex"
	"fmt"
	"maps"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
)

// keeper carries out commands of one conversation as worker and store do, including erasures.
type keeper struct {
	t       *testing.T
	id      string
	state   *conversation.State
	facts   *conversation.Facts
	log     []*conversationv1.Event
	effects []*historyv1.Effect
	views   *Views
}

func newKeeper(t *testing.T) *keeper {
	t.Helper()
	return &keeper{t: t, state: &conversation.State{}, facts: conversation.NewFacts(nil), views: newViews()}
}

// do carries out one command, which must be allowed.
func (k *keeper) do(sender string, body *conversationv1.Body) *conversationv1.Event {
	k.t.Helper()
	n := len(k.log)
	command := &brokerv1.Command{
		ConversationId: k.id, Sender: sender, CommandId: fmt.Sprintf("0192f3c0-0000-7000-8000-%012x", n), Body: encoded(body), Salt: make([]byte, chain.SaltSize),
	}
	if create := body.GetCreate(); create != nil {
		k.id = string(conversation.CreateID(ids.User(sender), ids.Command(command.GetCommandId()), create))
		command.ConversationId = k.id
	}
	result, refusal := conversation.Apply(k.state, k.facts, command, body, int64(n))
	require.Nil(k.t, refusal)
	k.state = result.State
	k.facts.Add(result.Event, result.Effects)
	k.log = append(k.log, result.Event)
	stored := &replayed{views: k.views, erased: map[uint64]uint64{}}
	for _, effect := range result.Effects {
		effect.Event = uint32(n)
		stored.carryOut(k.log, result.Event, effect)
		k.effects = append(k.effects, effect)
	}
	for seq := range stored.erased {
		erased := proto.CloneOf(k.log[seq-1])
		chain.Erase(erased)
		k.log[seq-1] = erased
		maps.DeleteFunc(k.views.Reactions, func(_ Reaction, added uint64) bool { return added == seq })
	}
	return result.Event
}

// position is that of an event.
func (k *keeper) position(seq uint64) Position { return Position{5, 10 * seq} }

// content is what is stored.
func (k *keeper) content() Content {
	k.views.Name, k.views.Members = k.state.Name, k.state.Members
	head := k.state.Head
	c := Content{
		Logs: map[string][]*conversationv1.Event{k.id: k.log}, Views: map[string]*Views{k.id: k.views},
		Heads: map[string]Head{k.id: {Seq: uint64(head), Hash: k.state.HeadHash, Position: k.position(uint64(head))}},
	}
	for _, event := range k.log {
		c.Places = append(c.Places, Place{3, k.position(event.GetSeq()), k.id, event.GetSeq()})
	}
	c.Stays = stays(c)
	return c
}

// fed returns what a reader of the feed receives.
func (k *keeper) fed() map[uint32][]Fed {
	fed := map[uint32][]Fed{}
	for _, event := range k.log {
		fed[3] = append(fed[3], Fed{k.position(event.GetSeq()), k.id, event.GetSeq(), hex.EncodeToString(event.GetHash())})
	}
	return fed
}

// keeping returns the append that stores a log without erasures.
func keeping(t *testing.T, c Content, id string) *historyv1.AppendRequest {
	t.Helper()
	k := newKeeper(t)
	request := &historyv1.AppendRequest{Expected: &historyv1.Watermark{}, BeginEpoch: true}
	for _, event := range c.Logs[id] {
		body, err := conversation.DecodeBody(event.GetBody())
		require.NoError(t, err)
		k.do(event.GetSender(), body)
		request.Sequences = append(request.Sequences, event.GetSeq())
	}
	request.Events, request.Effects = k.log, k.effects
	request.Next = &historyv1.Watermark{Stream: "1", Sequence: uint64(k.state.Head), TimeNs: 1}
	return request
}

func body(action any) *conversationv1.Body {
	b := &conversationv1.Body{}
	switch a := action.(type) {
	case *conversationv1.Edit:
		b.Action = &conversationv1.Body_Edit{Edit: a}
	case *conversationv1.Delete:
		b.Action = &conversationv1.Body_Delete{Delete: a}
	case *conversationv1.React:
		b.Action = &conversationv1.Body_React{React: a}
	case *conversationv1.Erase:
		b.Action = &conversationv1.Body_Erase{Erase: a}
	case *conversationv1.Message:
		b.Action = &conversationv1.Body_Message{Message: a}
	}
	return b
}

// lively returns a conversation with all kinds of events and effects: edits, replies, reactions, a deletion, erasures.
func lively(t *testing.T) *keeper {
	t.Helper()
	k := newKeeper(t)
	k.do("ann", group("group", "bob", "cem"))                                         // 1
	k.do("ann", message("one"))                                                       // 2
	k.do("bob", message("two"))                                                       // 3
	k.do("bob", body(&conversationv1.Edit{Target: 3, Text: "zwei"}))                  // 4
	k.do("cem", body(&conversationv1.React{Target: 2, Emoji: "x"}))                   // 5
	k.do("bob", body(&conversationv1.React{Target: 2, Emoji: "x"}))                   // 6
	k.do("cem", body(&conversationv1.Message{Text: "well", ReplyTo: 2}))              // 7
	k.do("ann", body(&conversationv1.React{Target: 3, Emoji: "y"}))                   // 8
	k.do("bob", body(&conversationv1.Delete{Target: 3}))                              // 9
	k.do(string(conversation.ServerUser), body(&conversationv1.Erase{Sender: "cem"})) // 10
	k.do(string(conversation.ServerUser), body(&conversationv1.Erase{Seqs: []uint64{1}}))
	return k
}

func TestALogWithErasuresReplaysToWhatIsStored(t *testing.T) {
	k := lively(t)
	c := k.content()
	require.Empty(t, CheckReplay(History{}, c))
	require.Empty(t, c.Views[k.id].Name, "it came with event 1")
	require.Equal(t, map[Reaction]uint64{{2, "bob", "x"}: 6}, c.Views[k.id].Reactions)
	require.Equal(t, map[uint64]uint64{1: 11, 3: 9, 4: 9, 5: 10, 7: 10, 8: 9}, replay(k.log).erased)
}

func TestWhatDoesNotFollowFromALogWithErasuresIsFound(t *testing.T) {
	for name, test := range map[string]struct {
		invariant string
		spoil     func(k *keeper, c Content)
	}{
		"an edit has no row":                 {"I11", func(k *keeper, c Content) { delete(c.Views[k.id].Messages, 3) }},
		"an answer is not counted":           {"I11", func(k *keeper, c Content) { c.Views[k.id].Messages[2].Replies = 0 }},
		"a deletion is not noted":            {"I11", func(k *keeper, c Content) { c.Views[k.id].Messages[3].DeletedSeq = 0 }},
		"a reaction is missing":              {"I11", func(k *keeper, c Content) { clear(c.Views[k.id].Reactions) }},
		"an erased reaction is still there":  {"I11", func(k *keeper, c Content) { c.Views[k.id].Reactions[Reaction{2, "cem", "x"}] = 5 }},
		"an erased name is still there":      {"I11", func(k *keeper, c Content) { c.Views[k.id].Name = "group" }},
		"a deleted message is still there":   {"erasure", func(k *keeper, c Content) { c.Logs[k.id][2].Body = []byte("x") }},
		"its salt is still there":            {"erasure", func(k *keeper, c Content) { c.Logs[k.id][2].Salt = make([]byte, 16) }},
		"more was erased than was asked for": {"erasure", func(k *keeper, c Content) { chain.Erase(c.Logs[k.id][1]) }},
	} {
		t.Run(name, func(t *testing.T) {
			k := lively(t)
			c := k.content()
			test.spoil(k, c)
			report := Report{Violations: CheckReplay(History{}, c)}
			require.Equal(t, test.invariant, report.Invariants(), "%v", report.Violations)
		})
	}
}
