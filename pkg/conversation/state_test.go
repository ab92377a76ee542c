package conversation

import (
	"testing"

	"github.com/stretchr/testify/require"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/ids"
)

// The creator owns a conversation; after they left, the member of longest standing does.
func TestOwner(t *testing.T) {
	for name, c := range map[string]struct {
		members map[ids.User]ids.Seq
		want    ids.User
	}{
		"nobody":               {nil, ""},
		"the creator":          {map[ids.User]ids.Seq{"ann": 1, "aaron": 1}, "ann"},
		"a creator came back":  {map[ids.User]ids.Seq{"ann": 9, "bob": 1}, "bob"},
		"of longest standing":  {map[ids.User]ids.Seq{"bob": 3, "cem": 2, "dan": 4}, "cem"},
		"of the lower user id": {map[ids.User]ids.Seq{"eve": 2, "dan": 2, "fay": 2, "gil": 2, "bob": 3}, "dan"},
	} {
		for range 100 { // a map has no order
			require.Equal(t, c.want, (&State{Creator: "ann", Members: c.members}).Owner(), name)
		}
	}
}

// A log may come from another installation, so folding a damaged event must not crash: an event without a body and without targets
// is folded like an erased one, also as the first one of a log.
func TestEveryKindFoldsWithoutItsContent(t *testing.T) {
	for _, kind := range Kinds() {
		event := &conversationv1.Event{Seq: 7, Kind: kind, Sender: "ann"}
		folded := Fold(nil, event)
		require.Equal(t, ids.Seq(7), folded.Head, "%s", kind)
		require.Equal(t, conversationv1.Kind_KIND_UNSPECIFIED, folded.Kind, "%s", kind)
		replayed, _ := Replay(nil, nil, event)
		require.Equal(t, folded, replayed, "%s", kind)
		require.NotContains(t, Joiners(event), "", "%s", kind)
	}
}

// The members of an empty state can be added to.
func TestMembersAreAddedToAnEmptyState(t *testing.T) {
	body := encode(&conversationv1.Body{Action: &conversationv1.Body_AddMembers{AddMembers: &conversationv1.AddMembers{Members: []string{"bob"}}}})
	folded := Fold(nil, &conversationv1.Event{Seq: 7, Kind: conversationv1.EventKind_EVENT_KIND_MEMBERS_ADDED, Body: body})
	require.Equal(t, map[ids.User]ids.Seq{"bob": 7}, folded.Members)
}

// What a create command says of the conversation is in its state.
func TestACreatedConversationHasItsNameAndMembers(t *testing.T) {
	body := &conversationv1.Body{Action: &conversationv1.Body_Create{Create: &conversationv1.Create{
		Kind: conversationv1.Kind_KIND_GROUP, Name: "plans", Members: []string{"bob"},
	}}}
	targets := encode(createKind{}.targets(&request{body: body}))
	folded := Fold(nil, &conversationv1.Event{
		Seq: 1, Kind: conversationv1.EventKind_EVENT_KIND_CREATED, Sender: "ann", TimeMs: 5, Body: encode(body), HeaderExtra: targets,
	})
	require.Equal(t, &State{
		Kind: conversationv1.Kind_KIND_GROUP, Name: "plans", Creator: "ann", Head: 1, NameSource: NameSource{Seq: 1, Sender: "ann", TimeMs: 5},
		Members: map[ids.User]ids.Seq{"ann": 1, "bob": 1},
	}, folded)
}
