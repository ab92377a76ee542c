package conversation_test

import (
	"fmt"
	"maps"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// Only the owner can add a user again whom the owner removed.
func TestOnlyTheOwnerAddsARemovedUserAgain(t *testing.T) {
	var r room
	require.Nil(t, r.apply("ann", group("bob", "mallory")))
	require.Nil(t, r.apply("ann", remove("mallory")))
	refused := r.apply("bob", add("cem", "mallory"))
	require.Equal(t, forbidden, refused.GetCode())
	require.Equal(t, "body.add_members.members", refused.GetField())
	require.NotContains(t, r.state.Members, ids.User("cem"), "all or none")
	require.Nil(t, r.apply("ann", add("mallory")))
	require.Nil(t, r.state.Removed)
	require.Nil(t, r.apply("mallory", leave()))
	require.Nil(t, r.apply("bob", add("mallory")), "who left may be added by any member")
}

// A creator who left does not become the owner again by being added, not even after removing all other members.
func TestACreatorWhoComesBackIsNoOwner(t *testing.T) {
	var r room
	require.Nil(t, r.apply("ann", group("bob", "cem")))
	require.Nil(t, r.apply("ann", leave()))
	require.Equal(t, ids.User("bob"), r.state.Owner())
	require.Nil(t, r.apply("cem", add("ann")))
	require.Equal(t, ids.User("bob"), r.state.Owner())
	require.Equal(t, forbidden, r.apply("ann", remove("bob")).GetCode())
	require.Nil(t, r.apply("bob", remove("ann")))
	require.Equal(t, forbidden, r.apply("cem", add("ann")).GetCode())
	require.Nil(t, r.apply("bob", leave()))
	require.Nil(t, r.apply("cem", add("ann")), "the next owner may")
	require.Equal(t, ids.User("cem"), r.state.Owner())
}

// model is the expected state of the group: the members with the start of each membership, the creator, and how each
// former member left.
type model struct {
	since   map[ids.User]ids.Seq
	removed map[ids.User]ids.Seq
}

// owner returns the creator until the creator leaves for the first time, then the member of longest standing.
func (m *model) owner(creator ids.User) (owner ids.User) {
	if m.since[creator] == 1 {
		return creator
	}
	for user, since := range m.since {
		if owner == "" || since < m.since[owner] || (since == m.since[owner] && user < owner) {
			owner = user
		}
	}
	return owner
}

// Random adds, removals, leaves and returns keep three rules: only standing decides about ownership, only the owner adds
// removed users again, and the state is computed from the log.
func TestMembershipsAgainstAModel(t *testing.T) {
	users := []string{"ann", "bob", "cem", "dan"}
	rapid.Check(t, func(t *rapid.T) {
		var r room
		require.Nil(t, r.apply("ann", group("bob")))
		m := model{since: map[ids.User]ids.Seq{"ann": 1, "bob": 1}, removed: map[ids.User]ids.Seq{}}
		for range rapid.IntRange(0, 80).Draw(t, "commands") {
			sender := ids.User(rapid.SampledFrom(users).Draw(t, "sender"))
			other := ids.User(rapid.SampledFrom(users).Draw(t, "other"))
			body := rapid.SampledFrom([]*conversationv1.Body{ // most leave the group with members, who can go on
				add(string(other)), add(string(other)), add(string(other)), remove(string(other)), remove(string(other)), remove(string(other)), leave(),
			}).Draw(t, "body")
			before := maps.Clone(r.state.Removed)
			old, owner := r.state, m.owner("ann")
			_, isMember := m.since[sender]
			_, otherIs := m.since[other]
			_, wasRemoved := m.removed[other]
			refused := r.apply(string(sender), body)
			require.Equal(t, before, old.Removed, "a state is never changed")
			seq := r.state.Head
			switch {
			case !isMember:
				require.NotNil(t, refused)
			case body.GetLeave() != nil:
				require.Nil(t, refused)
				delete(m.since, sender)
			case body.GetRemoveMember() != nil && (sender != owner || sender == other || !otherIs):
				require.NotNil(t, refused)
			case body.GetRemoveMember() != nil:
				require.Nil(t, refused)
				delete(m.since, other)
				m.removed[other] = seq
			case otherIs:
				require.Equal(t, conflict, refused.GetCode())
			case wasRemoved && sender != owner:
				require.Equal(t, forbidden, refused.GetCode())
			default:
				require.Nil(t, refused)
				m.since[other] = seq
				delete(m.removed, other)
			}
			require.Equal(t, m.since, r.state.Members)
			require.Equal(t, m.owner("ann"), r.state.Owner())
			require.Len(t, r.state.Removed, len(m.removed))
			for user, since := range m.removed {
				require.Equal(t, since, r.state.Removed[user])
			}
		}
		folded, _ := replay(r.events)
		require.Equal(t, r.state, folded)
	})
}

// A state contains the users who were removed last.
func TestRemovedUsersAreBounded(t *testing.T) {
	var r room
	require.Nil(t, r.apply("ann", group()))
	r.state.Removed = map[ids.User]ids.Seq{}
	for i := range conversation.MaxRemoved - 1 {
		r.state.Removed[ids.User(fmt.Sprint("u", i))] = ids.Seq(i)
	}
	r.state.Head = conversation.MaxRemoved
	removeNext := func(i int) {
		user := fmt.Sprint("u", conversation.MaxRemoved-1+i)
		require.Nil(t, r.apply("ann", add(user)))
		require.Nil(t, r.apply("ann", remove(user)))
		require.Len(t, r.state.Removed, conversation.MaxRemoved)
	}
	removeNext(0)
	require.Contains(t, r.state.Removed, ids.User("u0"), "there was room for one more")
	for i := range 3 {
		removeNext(1 + i)
	}
	require.NotContains(t, r.state.Removed, ids.User("u2"))
	require.Contains(t, r.state.Removed, ids.User("u3"))
}

// A batch that is not committed is dropped by going back to the state before it, so that state must be as it was.
func TestRemovalsDoNotChangeEarlierStates(t *testing.T) {
	var r room
	require.Nil(t, r.apply("ann", group("bob", "cem", "dan")))
	require.Nil(t, r.apply("ann", remove("bob")))
	for name, body := range map[string]*conversationv1.Body{
		"a removal": remove("cem"), "a return": add("bob"), "an addition": add("eve"), "a departure": leave(),
	} {
		before, removed, members := r.state, maps.Clone(r.state.Removed), maps.Clone(r.state.Members)
		require.Nil(t, r.apply("ann", body), name)
		require.Equal(t, removed, before.Removed, name)
		require.Equal(t, members, before.Members, name)
		r.state = before
	}
}

// Exactly the kinds that end the membership of somebody else are those by which users are removed.
func TestRemovalKindsEndTheMembershipOfOthers(t *testing.T) {
	var r room
	require.Nil(t, r.apply("ann", group("bob", "cem")))
	require.Nil(t, r.apply("ann", remove("bob")))
	require.Nil(t, r.apply("cem", leave()))
	var kinds []conversationv1.EventKind
	for _, event := range r.events {
		if _, left := conversation.Memberships(event); left != "" && string(left) != event.GetSender() {
			kinds = append(kinds, event.GetKind())
		}
	}
	require.Equal(t, kinds, conversation.RemovalKinds())
}
