package conversation_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/conversation"
)

// The stream is untrusted input: a command whose own fields are malformed is refused before the rules of its kind are asked.
func TestMalformedCommandsAreRefused(t *testing.T) {
	var r room
	require.Nil(t, r.apply("ann", group("bob")))
	valid := func() *brokerv1.Command {
		c := command(t, text("hi"))
		c.ConversationId, c.Sender, c.CommandId, c.Salt = r.id, "ann", commandID(9), make([]byte, chain.SaltSize)
		return c
	}
	for name, c := range map[string]struct {
		change func(*brokerv1.Command)
		want   conversationv1.ErrorCode
	}{
		"nothing is wrong":      {func(*brokerv1.Command) {}, 0},
		"the longest salt":      {func(c *brokerv1.Command) { c.Salt = make([]byte, chain.MaxSaltSize) }, 0},
		"a salt that is longer": {func(c *brokerv1.Command) { c.Salt = make([]byte, chain.MaxSaltSize+1) }, invalid},
		"the shortest salt":     {func(c *brokerv1.Command) { c.Salt = make([]byte, chain.MinSaltSize) }, 0},
		"a shorter salt":        {func(c *brokerv1.Command) { c.Salt = make([]byte, chain.MinSaltSize-1) }, invalid},
		"no salt":               {func(c *brokerv1.Command) { c.Salt = nil }, invalid},
		"no sender":             {func(c *brokerv1.Command) { c.Sender = "" }, invalid},
		"a sender with a space": {func(c *brokerv1.Command) { c.Sender = "an n" }, invalid},
		"another user":          {func(c *brokerv1.Command) { c.Sender = "eve" }, notFound},
		"the server":            {func(c *brokerv1.Command) { c.Sender = string(conversation.ServerUser) }, forbidden},
		"no command id":         {func(c *brokerv1.Command) { c.CommandId = "" }, invalid},
		"no conversation id":    {func(c *brokerv1.Command) { c.ConversationId = "" }, invalid},
		"a wildcard":            {func(c *brokerv1.Command) { c.ConversationId = "*" }, invalid},
	} {
		t.Run(name, func(t *testing.T) {
			changed := valid()
			c.change(changed)
			result, refusal := conversation.Apply(r.state, nil, changed, text("hi"), 2000)
			require.Equal(t, c.want, refusal.GetCode())
			if c.want != 0 {
				require.Same(t, r.state, result.State, "a refusal changes nothing")
				require.Nil(t, result.Event)
			}
		})
	}
}

// A command refers to messages by seq. A seq of which nothing is known, or of an event of an unknown kind, is not a message.
func TestReferencesMustNameAMessage(t *testing.T) {
	var r room
	require.Nil(t, r.apply("ann", group("bob")))
	require.Nil(t, r.apply("ann", text("first")))
	facts := func(kind conversationv1.EventKind) *conversation.Facts {
		known := conversation.NewFacts(nil)
		known.Load(conversation.Need{Seq: 2, User: "ann"}, &historyv1.Fact{Kind: kind, Sender: "ann"})
		return known
	}
	for what, body := range map[string]*conversationv1.Body{
		"body.message.reply_to": reply(2), "body.edit.target": edit(2, "x"), "body.delete.target": del(2), "body.react.target": react(2, "👍"),
	} {
		c := command(t, body)
		c.ConversationId, c.Sender, c.CommandId, c.Salt = r.id, "ann", commandID(9), make([]byte, chain.SaltSize)
		for name, known := range map[string]*conversation.Facts{
			"nothing is known":   nil,
			"of an unknown kind": facts(998),
			"not a message":      facts(conversationv1.EventKind_EVENT_KIND_CREATED),
		} {
			_, refusal := conversation.Apply(r.state, known, c, body, 2000)
			require.Equal(t, invalid, refusal.GetCode(), "%s, %s", what, name)
			require.Equal(t, what, refusal.GetField(), name)
		}
		_, refusal := conversation.Apply(r.state, facts(conversationv1.EventKind_EVENT_KIND_MESSAGE), c, body, 2000)
		require.Nil(t, refusal, what)
	}
}

// A message may be deleted by its sender; in a group also by the owner. A direct conversation has no owner who may do more.
func TestWhoMayDeleteAMessage(t *testing.T) {
	for name, c := range map[string]struct {
		create  *conversationv1.Body // by ann
		deletes string               // bob's message
		want    conversationv1.ErrorCode
	}{
		"the sender":                            {group("bob", "cem"), "bob", 0},
		"the owner":                             {group("bob", "cem"), "ann", 0},
		"another member":                        {group("bob", "cem"), "cem", forbidden},
		"the sender, in a direct conversation":  {create(conversationv1.Kind_KIND_DIRECT, "", "bob"), "bob", 0},
		"the creator of a direct conversation":  {create(conversationv1.Kind_KIND_DIRECT, "", "bob"), "ann", forbidden},
		"a user who is not a member of a group": {group("bob", "cem"), "eve", notFound},
	} {
		t.Run(name, func(t *testing.T) {
			var r room
			require.Nil(t, r.apply("ann", c.create))
			require.Nil(t, r.apply("bob", text("mine")))
			require.Equal(t, c.want, r.apply(c.deletes, del(2)).GetCode())
		})
	}
}

// A body without a kind is malformed, not new: it is refused. A command of the highest level that a build knows is decided by it.
func TestWhatIsTooNew(t *testing.T) {
	message, unknown := conversationv1.EventKind_EVENT_KIND_MESSAGE, conversationv1.EventKind(998)
	for name, c := range map[string]struct {
		level conversation.Level
		kind  conversationv1.EventKind
		want  bool
	}{
		"a message":             {conversation.MinLevel, message, false},
		"of the highest level":  {conversation.MaxLevel(), message, false},
		"of a higher level":     {conversation.MaxLevel() + 1, message, true},
		"of an unknown kind":    {conversation.MinLevel, unknown, true},
		"without a kind":        {conversation.MinLevel, 0, false},
		"a newer, without kind": {conversation.MaxLevel() + 1, 0, true},
	} {
		require.Equal(t, c.want, conversation.TooNew(&brokerv1.Command{Level: uint32(c.level)}, c.kind), name)
	}
}

// Gateways limit how many people a user adds, and refuse what no user may ask.
func TestWhatGatewaysAskOfABody(t *testing.T) {
	for name, c := range map[string]struct {
		body   *conversationv1.Body
		adds   []string
		mayAsk bool
	}{
		"create":    {group("bob", "cem"), []string{"bob", "cem"}, true},
		"add":       {add("dan"), []string{"dan"}, true},
		"message":   {text("hi"), nil, true},
		"remove":    {remove("bob"), nil, true},
		"erase":     {erase(&conversationv1.Erase{Sender: "ann"}), nil, false},
		"no action": {&conversationv1.Body{}, nil, false},
	} {
		require.Equal(t, c.adds, conversation.Adds(c.body), name)
		require.Equal(t, c.mayAsk, conversation.MayAsk(c.body), name)
	}
}
