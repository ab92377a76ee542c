package attack_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/protocol"
	"github.com/runnelhq/runnel/services/standalone"
)

// mostConversations is how many conversations a user of the target may be a member of.
const mostConversations = 10

var adding = []attack{
	{
		name: "a victim in ever more groups", tries: "two users create 16 groups with bob, where a user may be in 10 conversations", seen: "LIMIT above it; bob can be written to as before",
		bound: bound{sockets: 2, megabytes: 64, calls: 40}, settings: func(_ *testing.T, cfg *standalone.Config) {
			cfg.Gateway.MaxConversationsPerUser = mostConversations
		}, run: crowd,
	},
	{
		name: "members by the thousand", tries: "groups of 2,000 members, one after the other, where a user may add one member in ten seconds", seen: "RATE_LIMITED after the first",
		bound: bound{sockets: 1, megabytes: 64, calls: 20}, settings: func(_ *testing.T, cfg *standalone.Config) {
			cfg.Gateway.AddRatePerUser = 0.1
		}, run: recruit,
	},
	{
		name: "a way back into a group", tries: "a removed member is added again by another member, and in one command with others, and comes back by leaving or reading; a creator who left returns and removes, deletes and adds as if they owned it", seen: "FORBIDDEN or NOT_FOUND; the owner alone adds them again, and the creator is an ordinary member",
		bound: bound{sockets: 4, megabytes: 64, calls: 40}, run: comeBack,
	},
}

// group creates a group, and returns its outcome's error. The request itself may be refused as well.
func (c *client) group(members ...string) *conversationv1.Error {
	c.t.Helper()
	return c.refusal("", &conversationv1.Body{Action: &conversationv1.Body_Create{Create: &conversationv1.Create{
		Kind: conversationv1.Kind_KIND_GROUP, Name: "g", Members: members,
	}}})
}

func crowd(s *target) {
	eve, mallory := s.connect("eve"), s.connect("mallory")
	created := 1 // the conversation of ann and bob
	for range mostConversations - 2 {
		for _, stranger := range []*client{eve, mallory} {
			refused := stranger.group("bob")
			if refused == nil {
				created++
				continue
			}
			require.Equal(s, conversationv1.ErrorCode_ERROR_CODE_LIMIT, refused.GetCode(), "%v", refused)
			require.Contains(s, refused.GetMessage(), "bob")
		}
	}
	require.LessOrEqual(s, created, mostConversations)
	s.during()
	eve.leave()
	mallory.leave()
}

func recruit(s *target) {
	eve := s.connect("eve")
	members := make([]string, protocol.MaxMembers-1)
	for i := range members {
		members[i] = fmt.Sprint("user-", i)
	}
	require.Nil(s, eve.group(members...))
	for range 5 {
		refused := eve.group(members...)
		require.Equal(s, conversationv1.ErrorCode_ERROR_CODE_RATE_LIMITED, refused.GetCode(), "%v", refused)
		require.Positive(s, refused.GetRetryAfterMs())
	}
	s.during()
	eve.leave()
}

func add(members ...string) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_AddMembers{AddMembers: &conversationv1.AddMembers{Members: members}}}
}

func remove(member string) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_RemoveMember{RemoveMember: &conversationv1.RemoveMember{Member: member}}}
}

func comeBack(s *target) {
	const forbidden, notFound = conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN, conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND
	eve, carol, mallory := s.connect("eve"), s.connect("carol"), s.connect("mallory")
	text := &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: "hello"}}}
	leave := &conversationv1.Body{Action: &conversationv1.Body_Leave{Leave: &conversationv1.Leave{}}}
	group := eve.do("", &conversationv1.Body{Action: &conversationv1.Body_Create{Create: &conversationv1.Create{
		Kind: conversationv1.Kind_KIND_GROUP, Members: []string{"carol", "mallory"},
	}}}).GetConversationId()
	written := carol.do(group, text).GetSeq()
	require.NotZero(s, written)

	// The owner removes Mallory. Carol, who is not an owner, tries to add Mallory again.
	require.Nil(s, eve.refusal(group, remove("mallory")))
	require.Equal(s, forbidden, carol.refusal(group, add("mallory")).GetCode())
	require.Equal(s, forbidden, carol.refusal(group, add("dave", "mallory")).GetCode())
	require.Equal(s, notFound, mallory.refusal(group, add("mallory")).GetCode())
	require.Equal(s, notFound, mallory.refusal(group, leave).GetCode())
	require.Equal(s, notFound, mallory.refusal(group, text).GetCode())
	require.Equal(s, forbidden, carol.refusal(group, remove("eve")).GetCode())
	require.Nil(s, eve.refusal(group, add("mallory")), "the owner may")

	// The creator leaves: carol, the member of longest standing, owns the group. Coming back changes nothing.
	require.Nil(s, eve.refusal(group, leave))
	require.Equal(s, notFound, eve.refusal(group, remove("carol")).GetCode())
	require.Nil(s, mallory.refusal(group, add("eve")))
	require.Equal(s, forbidden, eve.refusal(group, remove("carol")).GetCode())
	require.Equal(s, forbidden, eve.refusal(group, remove("mallory")).GetCode())
	require.Equal(s, forbidden, eve.refusal(group, &conversationv1.Body{Action: &conversationv1.Body_Delete{Delete: &conversationv1.Delete{Target: written}}}).GetCode())
	require.Nil(s, carol.refusal(group, remove("mallory")))
	require.Equal(s, forbidden, eve.refusal(group, add("mallory")).GetCode())
	// Leaving and returning does not undo a removal, either.
	require.Nil(s, eve.refusal(group, leave))
	require.Nil(s, carol.refusal(group, add("eve")))
	require.Equal(s, forbidden, eve.refusal(group, add("mallory")).GetCode())
	s.during()
	for _, c := range []*client{eve, carol, mallory} {
		c.leave()
	}
}
