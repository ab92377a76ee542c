package conversation_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/protocol"
)

func TestIDsOfRealIssuers(t *testing.T) {
	for name, want := range map[string]string{
		"ann":      "ann",
		"X_y-9":    "X_y-9",
		"-_09azAZ": "-_09azAZ",
		strings.Repeat("a", protocol.MaxIDBytes-3) + "@":           strings.Repeat("a", protocol.MaxIDBytes-3) + "~40",
		strings.Repeat("a", protocol.MaxIDBytes):                   strings.Repeat("a", protocol.MaxIDBytes),
		"auth0|507f1f77bcf86cd799439011":                           "auth0~7C507f1f77bcf86cd799439011",
		"ann@example.com":                                          "ann~40example~2Ecom",
		"did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK": "did~3Akey~3Az6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK",
		"https://idp.example.com/u/7":                              "https~3A~2F~2Fidp~2Eexample~2Ecom~2Fu~2F7",
		"a~b":                                                      "a~7Eb",
		"auth0~7Cx":                                                "auth0~7E7Cx",
		"$server":                                                  "~24server",
		"Ünal":                                                     "~C3~9Cnal",
		"a b":                                                      "a~20b",
	} {
		id, err := conversation.MapUser(name)
		require.NoError(t, err, name)
		require.Equal(t, ids.User(want), id)
		require.True(t, conversation.ValidUser(string(id)), id)
		require.Equal(t, name, conversation.OriginalUser(id))
	}
	for name, want := range map[string]error{
		"":                      conversation.ErrUserEmpty,
		"ann\n":                 conversation.ErrUserUnprintable,
		"a\x00b":                conversation.ErrUserUnprintable,
		"a\xffb":                conversation.ErrUserUnprintable,
		"a\u202eb":              conversation.ErrUserUnprintable,
		"a\u200bb":              conversation.ErrUserUnprintable,
		strings.Repeat("a", 65): conversation.ErrUserTooLong,
		strings.Repeat("@", 22): conversation.ErrUserTooLong,
	} {
		_, err := conversation.MapUser(name)
		require.ErrorIs(t, err, want, "%q", name)
	}
	for _, id := range []string{
		"~", "a~", "a~7", "~7c", "~7C~", "~61", "~5F", "~2D", "~G0", "a|b", "a b", "~0A", "~FF", "~C3", "~E2~80~AE", "$server", "~G0~9F~98~80", "~GF", "a~4G",
		strings.Repeat("a", 62) + "~7C",
	} {
		require.False(t, conversation.ValidUser(id), "%q: not what any name is mapped to", id)
		require.Equal(t, id, conversation.OriginalUser(ids.User(id)))
	}
}

func TestWhatAPersonTypes(t *testing.T) {
	for typed, want := range map[string]string{"ann": "ann", "auth0|x": "auth0~7Cx", "auth0~7Cx": "auth0~7Cx", "a~b": "a~7Eb"} {
		id, err := conversation.ParseUser(typed)
		require.NoError(t, err)
		require.Equal(t, ids.User(want), id)
	}
	_, err := conversation.ParseUser("a\tb")
	require.ErrorIs(t, err, conversation.ErrUserUnprintable)
}

// TestMappingIsReversible tries random names, mostly of characters that the mapping itself uses. Each name maps to an id
// that maps back, no two names share an id, and every valid id belongs to exactly one name.
func TestMappingIsReversible(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	alphabet := []string{"a", "Z", "0", "9", "7", "C", "E", "_", "-", "~", "~7C", "~7E", "|", "@", ".", " ", "é", "\u6f22", "\u202e", "\xff"}
	names := map[ids.User]string{} // by id
	for range 200_000 {
		var text strings.Builder
		for range random.IntN(8) {
			text.WriteString(alphabet[random.IntN(len(alphabet))])
		}
		name := text.String()
		plain := !strings.ContainsFunc(name, func(r rune) bool { return !strings.ContainsRune("aZ097CE_-", r) })
		if id, err := conversation.MapUser(name); err == nil {
			require.True(t, conversation.ValidUser(string(id)), "%q → %q", name, id)
			require.Equal(t, name, conversation.OriginalUser(id))
			require.Equal(t, plain, string(id) == name, "%q → %q: plain ids stay, and only they", name, id)
			if other, taken := names[id]; taken {
				require.Equal(t, other, name, "%q has two names", id)
			}
			names[id] = name
		}
		if conversation.ValidUser(name) { // the text is itself a valid id
			mapped, err := conversation.MapUser(conversation.OriginalUser(ids.User(name)))
			require.NoError(t, err)
			require.Equal(t, ids.User(name), mapped, "the only id of its name")
		}
	}
	require.Greater(t, len(names), 1000)
}

func FuzzMapUser(f *testing.F) {
	for _, seed := range []string{"ann", "auth0|x", "a~7Cb", "~7E7C", "\xff", "é"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if id, err := conversation.MapUser(text); err == nil {
			require.True(t, conversation.ValidUser(string(id)))
			require.Equal(t, text, conversation.OriginalUser(id))
		}
		if conversation.ValidUser(text) {
			id, err := conversation.MapUser(conversation.OriginalUser(ids.User(text)))
			require.NoError(t, err)
			require.Equal(t, ids.User(text), id)
		}
	})
}

// Builds that know only level 1 refuse mapped ids, so every command with a mapped id needs level 2.
func TestMappedUsersNeedLevel2(t *testing.T) {
	for user, level := range map[string]conversation.Level{"bob": 1, "bob~40x": 2, "~40x": 2} {
		for name, body := range map[string]*conversationv1.Body{
			"create": {Action: &conversationv1.Body_Create{Create: &conversationv1.Create{Members: []string{"cem", user}}}},
			"add":    {Action: &conversationv1.Body_AddMembers{AddMembers: &conversationv1.AddMembers{Members: []string{"cem", user}}}},
			"remove": {Action: &conversationv1.Body_RemoveMember{RemoveMember: &conversationv1.RemoveMember{Member: user}}},
			"erase":  {Action: &conversationv1.Body_Erase{Erase: &conversationv1.Erase{Sender: user}}},
		} {
			require.Equal(t, level, conversation.LevelOf(body), name)
		}
		require.Equal(t, level, conversation.LevelOfUsers("ann", user))
	}
}
