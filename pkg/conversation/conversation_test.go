package conversation_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"pgregory.net/rapid"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/protocol"
)

const (
	invalid   = conversationv1.ErrorCode_ERROR_CODE_INVALID
	notFound  = conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND
	forbidden = conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN
	exists    = conversationv1.ErrorCode_ERROR_CODE_ALREADY_EXISTS
	conflict  = conversationv1.ErrorCode_ERROR_CODE_CONFLICT
	limit     = conversationv1.ErrorCode_ERROR_CODE_LIMIT
)

func create(kind conversationv1.Kind, name string, members ...string) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_Create{Create: &conversationv1.Create{Kind: kind, Name: name, Members: members}}}
}

func group(members ...string) *conversationv1.Body {
	return create(conversationv1.Kind_KIND_GROUP, "group", members...)
}

func text(s string) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: s}}}
}

func add(members ...string) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_AddMembers{AddMembers: &conversationv1.AddMembers{Members: members}}}
}

func remove(member string) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_RemoveMember{RemoveMember: &conversationv1.RemoveMember{Member: member}}}
}

func leave() *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_Leave{Leave: &conversationv1.Leave{}}}
}

func rename(name string) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_Rename{Rename: &conversationv1.Rename{Name: name}}}
}

// room is a conversation with a store in memory. Commands are applied one by one.
type room struct {
	id    string
	state *conversation.State
	n     int
	store
}

func commandID(n int) string { return fmt.Sprintf("0192f3c0-0000-7000-8000-%012x", n) }

func (r *room) apply(sender string, body *conversationv1.Body) *conversationv1.Error {
	r.n++
	encoded, err := conversation.EncodeBody(body)
	if err != nil {
		panic(err)
	}
	command := &brokerv1.Command{
		ConversationId: r.id, Sender: sender, CommandId: commandID(r.n), Body: encoded, Salt: make([]byte, chain.SaltSize),
	}
	if c := body.GetCreate(); c != nil && r.id == "" && conversation.Validate(ids.User(sender), body) == nil {
		command.ConversationId = string(conversation.CreateID(ids.User(sender), ids.Command(command.GetCommandId()), c))
		r.id = command.GetConversationId()
	}
	facts := conversation.NewFacts(nil)
	for _, need := range conversation.Needs(ids.User(sender), body) {
		if fact := r.fact(need); fact != nil {
			facts.Load(need, fact)
		}
	}
	result, refusal := conversation.Apply(r.state, facts, command, body, int64(1000+r.n))
	r.state = result.State
	if refusal == nil {
		r.commit(result.Event, result.Effects)
	}
	return refusal
}

func TestApplyDecidesWhoMayDoWhat(t *testing.T) {
	type step struct {
		sender string
		body   *conversationv1.Body
		code   conversationv1.ErrorCode // 0 if the command is carried out
	}
	for name, steps := range map[string][]step{
		"a group's life": {
			{"ann", group("bob", "cem"), 0},
			{"ann", text("hi"), 0},
			{"eve", text("let me in"), notFound},
			{"bob", remove("cem"), forbidden},
			{"eve", edit(2, "mine now"), notFound},
			{"bob", add("dan"), 0},
			{"bob", add("dan"), conflict},
			{"ann", remove("cem"), 0},
			{"cem", text("still here?"), notFound},
			{"ann", remove("cem"), conflict},
			{"bob", rename("new"), 0},
			{"ann", leave(), 0},
			{"dan", remove("bob"), forbidden},
			{"bob", remove("dan"), 0}, // the member of longest standing is the owner now
			{"bob", leave(), 0},
			{"bob", add("ann"), notFound},
		},
		"a direct conversation stays as it is": {
			{"ann", create(conversationv1.Kind_KIND_DIRECT, "", "bob"), 0},
			{"bob", text("hi"), 0},
			{"bob", add("cem"), forbidden},
			{"bob", leave(), forbidden},
			{"bob", rename("x"), forbidden},
			{"ann", remove("bob"), forbidden},
		},
		"what does not exist looks like what is not yours": {
			{"ann", text("hi"), invalid}, // no command is accepted without an id
		},
	} {
		t.Run(name, func(t *testing.T) {
			var r room
			for i, s := range steps {
				require.Equal(t, s.code, r.apply(s.sender, s.body).GetCode(), "step %d", i)
			}
		})
	}
}

func TestApplyRefusesASecondCreation(t *testing.T) {
	var r room
	body := create(conversationv1.Kind_KIND_DIRECT, "", "bob")
	require.Nil(t, r.apply("ann", body))
	require.Equal(t, exists, r.apply("bob", create(conversationv1.Kind_KIND_DIRECT, "", "ann")).GetCode(), "the same pair the other way round")
}

func TestApplyRefusesAnIDThatDoesNotFollow(t *testing.T) {
	r := room{id: string(conversation.GroupID("mallory", ids.Command(commandID(99))))}
	require.Equal(t, invalid, r.apply("ann", group("bob")).GetCode())
}

func TestGroupsHaveALimit(t *testing.T) {
	members := make([]string, protocol.MaxMembers-1)
	for i := range members {
		members[i] = fmt.Sprintf("u%d", i)
	}
	var r room
	require.Nil(t, r.apply("ann", group(members...)))
	require.Equal(t, limit, r.apply("ann", add("one-more")).GetCode())
	require.Equal(t, invalid, (&room{}).apply("ann", group(slices.Concat(members, []string{"one-more"})...)).GetCode())
}

func TestReplyMustNameAMessage(t *testing.T) {
	var r room
	require.Nil(t, r.apply("ann", group("bob")))
	require.Nil(t, r.apply("ann", text("first")))
	reply := func(to uint64) *conversationv1.Body {
		return &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: "re", ReplyTo: to}}}
	}
	require.Equal(t, invalid, r.apply("ann", reply(1)).GetCode())
	require.Nil(t, r.apply("ann", reply(2)))
	require.Nil(t, r.apply("bob", reply(2)))
	require.Equal(t, invalid, r.apply("ann", reply(5)).GetCode())
	require.Equal(t, uint32(2), r.rows[2].GetReplies())
	require.Equal(t, uint64(4), r.rows[2].GetLastReplySeq())
}

func TestConflictsComparesBodies(t *testing.T) {
	var r room
	require.Nil(t, r.apply("ann", group("bob")))
	require.Nil(t, r.apply("ann", text("one")))
	first := r.events[1]
	require.False(t, conversation.Conflicts(first, command(t, text("one"))))
	require.True(t, conversation.Conflicts(first, command(t, text("two"))))
	require.True(t, conversation.Conflicts(first, command(t, leave())))

	// The same fields in another order: another client or gateway may encode in that order.
	other := command(t, text("one"))
	inner := protowire.AppendTag(nil, 2, protowire.VarintType)
	inner = protowire.AppendVarint(inner, 0) // the canonical form leaves out an implicit default
	inner = protowire.AppendString(protowire.AppendTag(inner, 1, protowire.BytesType), "one")
	other.Body = protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), inner)
	require.False(t, conversation.Conflicts(first, other), "canonically they are the same")
	other.Body = append(other.GetBody(), 0xe0, 0x5d, 0x01)
	require.True(t, conversation.Conflicts(first, other), "a field that this build does not know may mean anything")

	chain.Erase(first)
	require.False(t, conversation.Conflicts(first, command(t, text("two"))), "nothing is left to compare with")
}

func command(t *testing.T, body *conversationv1.Body) *brokerv1.Command {
	t.Helper()
	encoded, err := conversation.EncodeBody(body)
	require.NoError(t, err)
	return &brokerv1.Command{Body: encoded}
}

func TestValidateNamesTheField(t *testing.T) {
	long := strings.Repeat("x", protocol.MaxTextBytes+1)
	metadata := func(key, value string) *conversationv1.Body {
		return &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Metadata: map[string]string{key: value}}}}
	}
	many := &conversationv1.Message{Metadata: map[string]string{}}
	for i := range protocol.MaxMetadataEntries + 1 {
		many.Metadata[strconv.Itoa(i)] = ""
	}
	for name, c := range map[string]struct {
		body  *conversationv1.Body
		field string
	}{
		"no body":             {nil, ""},
		"no action":           {&conversationv1.Body{}, ""},
		"empty text":          {text(""), "message.text"},
		"long text":           {text(long), "message.text"},
		"not UTF-8":           {text("\xff"), "message.text"},
		"NUL":                 {text("a\x00b"), "message.text"},
		"escape":              {text("\x1b[31m"), "message.text"},
		"bad key":             {metadata("a b", ""), "message.metadata"},
		"long key":            {metadata(strings.Repeat("k", 65), ""), "message.metadata"},
		"long value":          {metadata("k", strings.Repeat("v", 1025)), "message.metadata.k"},
		"too many entries":    {&conversationv1.Body{Action: &conversationv1.Body_Message{Message: many}}, "message.metadata"},
		"no kind":             {create(0, ""), "create.kind"},
		"channel":             {create(conversationv1.Kind_KIND_CHANNEL, ""), "create.kind"},
		"direct with two":     {create(conversationv1.Kind_KIND_DIRECT, "", "bob", "cem"), "create.members"},
		"direct with oneself": {create(conversationv1.Kind_KIND_DIRECT, "", "ann"), "create.members"},
		"direct with name":    {create(conversationv1.Kind_KIND_DIRECT, "x", "bob"), "create.name"},
		"member twice":        {group("bob", "bob"), "create.members[1]"},
		"wildcard member":     {group("*"), "create.members[0]"},
		"add nobody":          {add(), "add_members.members"},
		"dotted member":       {add("a.b"), "add_members.members[0]"},
		"remove nobody":       {remove(""), "remove_member.member"},
		"remove oneself":      {remove("ann"), "remove_member.member"},
		"empty name":          {rename(""), "rename.name"},
		"name with newline":   {rename("a\nb"), "rename.name"},
	} {
		t.Run(name, func(t *testing.T) {
			err := conversation.Validate("ann", c.body)
			require.NotNil(t, err)
			require.Equal(t, c.field, err.Field)
			require.NotEmpty(t, err.Rule)
		})
	}
	require.Nil(t, conversation.Validate("ann", text("tab\tand\nline, a<b && c>d, 🌉")))
	require.Nil(t, conversation.Validate("ann", metadata("only", "metadata")))
}

// TestRandomCommandsKeepTheInvariants applies random commands of all kinds from few users, and compares apply with a model
// that keeps only a set of members.
func TestRandomCommandsKeepTheInvariants(t *testing.T) {
	users := []string{"ann", "bob", "cem", "dan", "eve"}
	rapid.Check(t, func(t *rapid.T) {
		var r room
		require.Nil(t, r.apply("ann", group("bob")))
		members := map[string]bool{"ann": true, "bob": true}
		for range rapid.IntRange(0, 60).Draw(t, "commands") {
			sender := ids.User(rapid.SampledFrom(users).Draw(t, "sender"))
			other := rapid.SampledFrom(users).Draw(t, "other")
			target := rapid.Uint64Range(0, uint64(r.state.Head+1)).Draw(t, "target")
			emoji := rapid.SampledFrom([]string{"👍", "🎉"}).Draw(t, "emoji")
			body := rapid.SampledFrom([]*conversationv1.Body{
				text("hello"), text(""), add(other), remove(other), leave(), rename("x"), group(other), reply(target),
				edit(target, "changed"), remove(other), del(target), react(target, emoji), unreact(target, emoji),
				erase(&conversationv1.Erase{Seqs: []uint64{target}}), erase(&conversationv1.Erase{Sender: other}),
				erase(&conversationv1.Erase{BeforeMs: int64(1000 + target)}),
			}).Draw(t, "body")
			if body.GetErase() != nil && rapid.IntRange(0, 3).Draw(t, "server") > 0 {
				sender = conversation.ServerUser
			}
			before := r.state
			head, memberCount := before.Head, len(before.Members)
			owner := before.Owner()
			refusal := r.apply(string(sender), body)
			require.Equal(t, head, before.Head, "a state is never changed")
			require.Len(t, before.Members, memberCount, "a state is never changed")
			if refusal != nil {
				require.Same(t, before, r.state, "a refusal changes nothing")
				continue
			}
			require.True(t, members[string(sender)] || sender == conversation.ServerUser && body.GetErase() != nil, "only members may act")
			switch {
			case body.GetAddMembers() != nil:
				members[other] = true
			case body.GetRemoveMember() != nil:
				require.Equal(t, owner, sender)
				delete(members, other)
			case body.GetLeave() != nil:
				delete(members, string(sender))
			}
			require.Equal(t, head+1, r.state.Head)
		}
		var v chain.Verifier
		for i, event := range r.events {
			require.Equal(t, uint64(i+1), event.GetSeq(), "no hole")
			content, err := v.Next(event)
			require.NoError(t, err)
			require.Equal(t, len(event.GetBody()) == 0, content == chain.Erased)
		}
		folded, rebuilt := replay(r.events)
		require.Equal(t, r.state, folded, "the state follows from the log alone, whatever was erased from it")
		require.Equal(t, r.rows, rebuilt.rows, "and the view rows")
		require.Equal(t, r.reactions, rebuilt.reactions, "and the reactions")
		require.Len(t, r.state.Members, len(members))
		for member := range members {
			require.Contains(t, r.state.Members, ids.User(member))
		}
		if len(members) > 0 {
			require.True(t, members[string(r.state.Owner())])
		}
	})
}

func TestIDs(t *testing.T) {
	require.Equal(t, conversation.DirectID("ann", "bob"), conversation.DirectID("bob", "ann"))
	require.NotEqual(t, conversation.DirectID("ann", "bob"), conversation.DirectID("an", "nbob"))
	require.True(t, conversation.ValidID(string(conversation.DirectID("ann", "bob"))))
	require.True(t, conversation.ValidID(string(conversation.GroupID("ann", ids.Command(commandID(1))))))
	require.NotEqual(t, conversation.GroupID("ann", ids.Command(commandID(1))), conversation.GroupID("bob", ids.Command(commandID(1))))
	require.True(t, conversation.ValidCommandID(commandID(1)))
	for _, bad := range []string{
		"", "0192F3C0-0000-7000-8000-000000000000",
		"0192f3c000007000800000000000000000000", "0192f3c0-0000-7000-8000-00000000000\n",
	} {
		require.False(t, conversation.ValidCommandID(bad), "%q", bad)
	}
	require.True(t, conversation.AdmissibleCommandID(commandID(1)))
	for _, bad := range []string{"0192f3c0-0000-4000-8000-000000000000", "0192f3c0-0000-7000-c000-000000000000"} {
		require.False(t, conversation.AdmissibleCommandID(bad), "%q", bad)
		require.True(t, conversation.ValidCommandID(bad), "%q: any UUID is accepted behind the gateway", bad)
	}
	later := "x" + conversation.DirectID("ann", "bob")[1:]
	require.True(t, conversation.ValidID(string(later)), "a form of a later version")
	require.False(t, conversation.AdmissibleID(string(later)))
	require.True(t, conversation.AdmissibleID(string(conversation.DirectID("ann", "bob"))))
	require.False(t, conversation.ValidUser(string(conversation.ServerUser)), "no token can have the server as its user")
	counts := make([]int, 16)
	for i := range 16000 {
		counts[conversation.Partition(conversation.GroupID("ann", ids.Command(commandID(i))), 16)]++
	}
	for p, n := range counts {
		require.InDelta(t, 1000, n, 200, "partition %d", p)
	}
}

func TestBeforeIsRightBefore(t *testing.T) {
	for id, before := range map[string]string{
		"g0123456789abcdefghijklmnop": "g0123456789abcdefghijklmnoo",
		"g012345678900000000000000a0": "g0123456789000000000000009v",
		"g00000000000000000000000000": "fvvvvvvvvvvvvvvvvvvvvvvvvvv",
		"a00000000000000000000000000": "a00000000000000000000000000",
	} {
		require.Equal(t, ids.Conversation(before), conversation.Before(ids.Conversation(id)))
		require.True(t, conversation.ValidID(string(conversation.Before(ids.Conversation(id)))))
	}
}

func FuzzIDs(f *testing.F) {
	for _, seed := range []string{"ann", "a.b", "*", ">", "a b", "\n", "d0123456789abcdefghijklmnop", commandID(7), strings.Repeat("a", 65), "ü"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		safe := !strings.ContainsAny(s, ".*> \t\r\n\x00") && s != ""
		for name, valid := range map[string]bool{
			"user": conversation.ValidUser(s), "conversation": conversation.ValidID(s), "command": conversation.ValidCommandID(s),
		} {
			if valid && !safe {
				t.Errorf("%s id %q would not be safe in a subject", name, s)
			}
		}
	})
}
