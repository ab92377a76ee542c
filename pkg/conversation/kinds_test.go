package conversation_test

import (
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/protocol"
)

var update = flag.Bool("update", false, "rewrite the table of README.md")

func edit(target uint64, s string) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_Edit{Edit: &conversationv1.Edit{Target: target, Text: s}}}
}

func del(target uint64) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_Delete{Delete: &conversationv1.Delete{Target: target}}}
}

func react(target uint64, emoji string) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_React{React: &conversationv1.React{Target: target, Emoji: emoji}}}
}

func unreact(target uint64, emoji string) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_React{React: &conversationv1.React{Target: target, Emoji: emoji, Remove: true}}}
}

func reply(to uint64) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: "re", ReplyTo: to}}}
}

func erase(e *conversationv1.Erase) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_Erase{Erase: e}}
}

// vectorFile contains bodies of each kind, in protobuf JSON and as canonical bytes. The first vector of a kind has the
// name of its action. Further vectors have that name, a colon and the case that they show.
const vectorFile = "kinds.json"

type kindVector struct {
	Body      json.RawMessage `json:"body"`
	Canonical string          `json:"canonical"`
}

// TestEveryActionIsComplete: each field of Body's oneof has a number in the range of actions that is also an EventKind, a
// row in the table, a sentence of documentation, roles, and a vector.
func TestEveryActionIsComplete(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", vectorFile))
	require.NoError(t, err)
	vectors := map[string]kindVector{}
	require.NoError(t, json.Unmarshal(data, &vectors))

	fields := (&conversationv1.Body{}).ProtoReflect().Descriptor().Oneofs().ByName("action").Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		name := string(field.Name())
		kind := conversationv1.EventKind(field.Number())
		t.Run(name, func(t *testing.T) {
			require.Contains(t, conversation.Kinds(), kind, "has no row in the table of kinds.go")
			require.NotEmpty(t, conversationv1.EventKind_name[int32(kind)], "there is no EventKind with the number %d", kind)
			require.Less(t, int(kind), 1000, "numbers of actions are below 1000")
			described, _ := conversation.Describe(kind)
			require.NotEmpty(t, described.Doc, "the row has no doc")
			require.NotEmpty(t, described.Roles.Names(), "the row has no roles")
			require.NotZero(t, described.Class, "the row has no class")
			require.GreaterOrEqual(t, described.Level, conversation.MinLevel, "the row has no level")

			require.Contains(t, vectors, name, "has no vector in testdata/%s", vectorFile)
			for title, vector := range vectors {
				if action, _, _ := strings.Cut(title, ":"); action != name {
					continue
				}
				body := &conversationv1.Body{}
				require.NoError(t, protojson.Unmarshal(vector.Body, body))
				require.Equal(t, kind, conversation.KindOf(body))
				require.Nil(t, conversation.Validate("alice", body))
				encoded, err := conversation.EncodeBody(body)
				require.NoError(t, err)
				require.Equal(t, vector.Canonical, hex.EncodeToString(encoded), "the canonical bytes of %q; copy the actual ones if they begin with the field's number", title)
				require.Equal(t, kind, conversation.KindOfBytes(encoded))
				require.Empty(t, notCanonical(t, body.ProtoReflect().Descriptor(), encoded))
				if described.Class == conversation.Structure {
					require.Nil(t, freeText(body.ProtoReflect()), "a structure body holds ids and seqs only")
				}
			}
		})
	}
	for title := range vectors {
		name, _, _ := strings.Cut(title, ":")
		require.NotNil(t, fields.ByName(protoreflect.Name(name)), "testdata/%s has a vector %s that is not in Body", vectorFile, name)
	}
	for _, kind := range conversation.Kinds() {
		require.NotNil(t, fields.ByNumber(protoreflect.FieldNumber(kind)), "the table has the kind %d that is not in Body", kind)
	}
}

// TestTheReadmeListsEveryKind: the table in README.md is generated from the table in the code.
func TestTheReadmeListsEveryKind(t *testing.T) {
	const begin, end = "<!-- kinds -->\n", "<!-- /kinds -->\n"
	var table strings.Builder
	table.WriteString("| kind | number | body | who may | direct | level | |\n|---|---|---|---|---|---|---|\n")
	for _, kind := range conversation.Kinds() {
		d, name := conversation.Describe(kind)
		direct := "no"
		if d.InDirect {
			direct = "yes"
		}
		fmt.Fprintf(&table, "| `%s` | %d | %s | %s | %s | %d | %s |\n", name, kind, d.Class, strings.Join(d.Roles.Names(), ", "), direct, d.Level, d.Doc)
	}
	text, err := os.ReadFile("README.md")
	require.NoError(t, err)
	before, rest, found := strings.Cut(string(text), begin)
	require.True(t, found)
	inside, after, found := strings.Cut(rest, end)
	require.True(t, found)
	if *update {
		require.NoError(t, os.WriteFile("README.md", []byte(before+begin+table.String()+end+after), 0o600))
		return
	}
	require.Equal(t, table.String(), inside, "rewrite it with `go test ./pkg/conversation -update`")
}

// TestTheRowSaysWhatChangesMembers: gateways and workers look for changed memberships only if the kind's row says that
// the kind changes memberships.
func TestTheRowSaysWhatChangesMembers(t *testing.T) {
	seen := map[conversationv1.EventKind]bool{}
	var r room
	for _, s := range []struct {
		sender string
		body   *conversationv1.Body
	}{
		{"ann", group("bob")},
		{"ann", add("cem")},
		{"ann", remove("cem")},
		{"bob", leave()},
		{"ann", text("x")},
		{"ann", rename("x")},
		{"ann", edit(5, "y")},
		{"ann", react(5, "👍")},
		{"ann", del(5)},
		{string(conversation.ServerUser), erase(&conversationv1.Erase{Seqs: []uint64{5}})},
	} {
		var before map[ids.User]ids.Seq
		if r.state != nil {
			before = r.state.Members
		}
		require.Nil(t, r.apply(s.sender, s.body))
		event := r.events[len(r.events)-1]
		joined, left := conversation.Memberships(event)
		seen[event.GetKind()] = true
		require.Equal(t, !maps.Equal(before, r.state.Members), len(joined) > 0 || left != "", "%v: set membership in its row, or leave members out", event.GetKind())
	}
	for _, kind := range conversation.Kinds() {
		require.True(t, seen[kind], "kind %d is missing from this test", kind)
	}
}

// TestTheRowSaysWhatErases: gateways remove content from memory only if the kind's row says that the kind erases.
func TestTheRowSaysWhatErases(t *testing.T) {
	var r room
	for _, s := range []struct {
		sender string
		body   *conversationv1.Body
	}{
		{"ann", group("bob")},
		{"ann", text("x")},
		{"ann", add("cem")},
		{"ann", rename("x")},
		{"ann", edit(2, "y")},
		{"ann", react(2, "👍")},
		{"ann", del(2)},
		{string(conversation.ServerUser), erase(&conversationv1.Erase{Seqs: []uint64{4}})},
	} {
		before := slices.Clone(r.events)
		require.Nil(t, r.apply(s.sender, s.body))
		changed := false
		for i := range before {
			changed = changed || before[i] != r.events[i]
		}
		kind := r.events[len(r.events)-1].GetKind()
		require.Equal(t, changed, conversation.Erases(kind), "%v: set erases in its row, or erase nothing", kind)
	}
}

func TestEditsDeletesAndReactions(t *testing.T) {
	type step struct {
		sender string
		body   *conversationv1.Body
		code   conversationv1.ErrorCode
	}
	var r room
	for i, s := range []step{
		{"ann", group("bob", "cem"), 0},
		{"ann", text("helo"), 0}, // 2
		{"bob", edit(2, "stolen"), forbidden},
		{"ann", edit(1, "a name?"), invalid},
		{"ann", edit(9, "later"), invalid},
		{"ann", edit(0, "nothing"), invalid},
		{"ann", edit(2, "hello"), 0}, // 3
		{"ann", edit(3, "an edit of an edit"), invalid},
		{"bob", react(2, "👍"), 0}, // 4
		{"bob", react(2, "👍"), conflict},
		{"bob", react(2, "a b"), invalid},
		{"cem", unreact(2, "👍"), conflict},
		{"cem", react(2, "👍"), 0},   // 5
		{"bob", unreact(2, "👍"), 0}, // 6
		{"bob", unreact(2, "👍"), conflict},
		{"cem", reply(2), 0}, // 7
		{"bob", del(2), forbidden},
		{"ann", del(2), 0}, // 8
		{"ann", del(2), conflict},
		{"ann", edit(2, "back"), conflict},
		{"bob", react(2, "🎉"), conflict},
		{"bob", reply(2), 0},                                            // 9: the thread continues
		{"ann", del(7), 0},                                              // 10: the owner may delete it
		{"ann", erase(&conversationv1.Erase{Sender: "bob"}), forbidden}, // clients may never erase
		{string(conversation.ServerUser), erase(&conversationv1.Erase{Sender: "bob"}), 0}, // 11
		{string(conversation.ServerUser), text("hello"), forbidden},                       // the server may send nothing else
		{string(conversation.ServerUser), erase(&conversationv1.Erase{Seqs: []uint64{99}}), invalid},
	} {
		require.Equal(t, s.code, r.apply(s.sender, s.body).GetCode(), "step %d", i)
	}
	for seq, erased := range map[uint64]bool{1: false, 2: true, 3: true, 4: true, 5: true, 6: true, 7: true, 8: false, 9: true} {
		require.Equal(t, erased, len(r.events[seq-1].GetBody()) == 0, "seq %d", seq)
	}
	require.Empty(t, r.reactions)
	view := conversation.View(r.view(2))
	require.Equal(t, uint64(8), view.GetDeletedSeq())
	require.Equal(t, uint32(2), view.GetReplies())
	require.Nil(t, view.GetMessage())
}

func TestAViewShowsTheNewestContent(t *testing.T) {
	var r room
	require.Nil(t, r.apply("ann", group("bob")))
	require.Nil(t, r.apply("ann", text("first")))
	require.Nil(t, r.apply("bob", reply(2)))
	require.Nil(t, r.apply("bob", edit(3, "better")))
	view := conversation.View(r.view(3))
	require.Equal(t, "better", view.GetMessage().GetText())
	require.Equal(t, uint64(2), view.GetMessage().GetReplyTo(), "the message that it replies to does not change")
	require.Equal(t, uint64(4), view.GetEditSeq())
	require.Equal(t, "first", conversation.View(r.view(2)).GetMessage().GetText())
	withReactions := r.view(2)
	withReactions.Reactions = []*historyv1.ReactionCount{{Emoji: "👍", Count: 3, Mine: true}, {Emoji: "🎉", Count: 1}}
	require.Equal(t, []string{"👍", "🎉"}, emojis(conversation.View(withReactions)), "in the order of the store")

	require.Nil(t, r.apply(string(conversation.ServerUser), erase(&conversationv1.Erase{Seqs: []uint64{4}})))
	view = conversation.View(r.view(3))
	require.True(t, view.GetErased(), "an older content is not shown again")
	require.Nil(t, view.GetMessage())
}

func emojis(view *clientv1.MessageView) (list []string) {
	for _, r := range view.GetReactions() {
		list = append(list, r.GetEmoji())
	}
	return list
}

// TestAnErasedRemovalStaysRemoved: a reaction that an erased event removed must not come back with a rebuild.
func TestAnErasedRemovalStaysRemoved(t *testing.T) {
	var r room
	require.Nil(t, r.apply("ann", group("bob")))
	require.Nil(t, r.apply("ann", text("first")))
	require.Nil(t, r.apply("bob", react(2, "👍")))
	require.Nil(t, r.apply("bob", unreact(2, "👍")))
	require.Nil(t, r.apply(string(conversation.ServerUser), erase(&conversationv1.Erase{Seqs: []uint64{4}})))
	_, rebuilt := replay(r.events)
	require.Empty(t, rebuilt.reactions)
}

// A rebuild cannot know which reaction an erased event added, so it adds none.
func TestAnErasedReactionStaysAway(t *testing.T) {
	var r room
	require.Nil(t, r.apply("ann", group("bob")))
	require.Nil(t, r.apply("ann", text("first")))
	require.Nil(t, r.apply("bob", react(2, "👍")))
	require.Nil(t, r.apply(string(conversation.ServerUser), erase(&conversationv1.Erase{Seqs: []uint64{3}})))
	require.Empty(t, r.reactions)
	_, rebuilt := replay(r.events)
	require.Empty(t, rebuilt.reactions)
}

func TestErasingTheNameErasesIt(t *testing.T) {
	var r room
	require.Nil(t, r.apply("ann", group("bob")))
	require.Nil(t, r.apply("bob", rename("secret plans")))
	require.Nil(t, r.apply(string(conversation.ServerUser), erase(&conversationv1.Erase{Sender: "bob"})))
	require.Empty(t, r.state.Name)
	require.Nil(t, r.apply("ann", rename("plans")))
	require.Equal(t, "plans", r.state.Name)
}

func TestReactionsOfAUserAreLimited(t *testing.T) {
	var r room
	require.Nil(t, r.apply("ann", group("bob")))
	require.Nil(t, r.apply("ann", text("first")))
	for i := range protocol.MaxReactionsPerUser {
		require.Nil(t, r.apply("bob", react(2, strconv.Itoa(i))))
	}
	require.Equal(t, limit, r.apply("bob", react(2, "x")).GetCode())
	require.Nil(t, r.apply("ann", react(2, "x")))
}

// TestTextsAreStoredAsTheyCame: messages and edits may contain every line break of plain text, and no other control
// character. Builds of level 1 refuse carriage returns, so texts with carriage returns need level 2.
func TestTextsAreStoredAsTheyCame(t *testing.T) {
	bodies := map[string]func(string) *conversationv1.Body{
		"message": text, "edit": func(s string) *conversationv1.Body { return edit(2, s) },
	}
	for what, body := range bodies {
		for s, level := range map[string]conversation.Level{
			"a\nb": 1, "a\tb": 1, "a\r\nb\r\n": 2, "a\rb": 2, "\r": 2, "a\u2028b": 1, "a\u202eb": 1,
		} {
			require.Nil(t, conversation.Validate("ann", body(s)), "%s %q", what, s)
			require.Equal(t, level, conversation.LevelOf(body(s)), "%s %q", what, s)
			require.LessOrEqual(t, level, conversation.MaxLevel())

			var r room
			require.Nil(t, r.apply("ann", group("bob")))
			require.Nil(t, r.apply("ann", text("x")))
			require.Nil(t, r.apply("ann", body(s)))
			stored, err := conversation.DecodeBody(r.events[2].GetBody())
			require.NoError(t, err)
			require.Equal(t, s, stored.GetMessage().GetText()+stored.GetEdit().GetText())
		}
		for r := range rune(0xa0) {
			if r == '\t' || r == '\n' || r == '\r' || (r >= ' ' && r < 0x7f) {
				continue
			}
			err := conversation.Validate("ann", body("a"+string(r)+"b"))
			require.NotNil(t, err, "%s U+%04X", what, r)
			require.Equal(t, what+".text", err.Field)
			require.Contains(t, err.Rule, "control characters other than tab, line feed and carriage return")
		}
	}
	require.NotNil(t, conversation.Validate("ann", rename("a\r\nb")), "names have one line")
	require.Equal(t, conversation.Level(1), conversation.LevelOf(rename("a")))
}

// TestAKindOfTheFutureIsNotJudged: a part must not refuse a command of a kind that it does not know.
func TestAKindOfTheFutureIsNotJudged(t *testing.T) {
	future := protowire.AppendBytes(protowire.AppendTag(nil, 998, protowire.BytesType), nil)
	c := command(t, text("x"))
	require.False(t, conversation.TooNew(c, conversation.KindOfBytes(c.GetBody())))
	c.Level = uint32(conversation.MaxLevel()) + 1
	require.True(t, conversation.TooNew(c, conversation.KindOfBytes(c.GetBody())), "of a higher level")
	c.Level, c.Body = 1, future
	require.True(t, conversation.TooNew(c, conversation.KindOfBytes(c.GetBody())), "of an unknown kind")
	require.Equal(t, conversationv1.EventKind(998), conversation.KindOfBytes(future))
	require.Zero(t, conversation.KindOfBytes(append(future, c.GetBody()...)), "a body with a second action has no kind")
	require.Zero(t, conversation.KindOfBytes([]byte{0xff}))
}

// TestARetriedMapIsTheSame: the canonical encoding does not depend on the order of a map.
func TestARetriedMapIsTheSame(t *testing.T) {
	body := &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Metadata: map[string]string{}}}}
	for i := range protocol.MaxMetadataEntries {
		body.GetMessage().Metadata[strconv.Itoa(i)] = "v"
	}
	first, err := conversation.EncodeBody(body)
	require.NoError(t, err)
	for range 20 {
		again, err := conversation.EncodeBody(proto.Clone(body).(*conversationv1.Body))
		require.NoError(t, err)
		require.Equal(t, first, again)
	}
	require.Empty(t, notCanonical(t, body.ProtoReflect().Descriptor(), first))
}

// TestAnErasedLogFoldsToTheSameMembers: erasing never removes data that decides about membership.
func TestAnErasedLogFoldsToTheSameMembers(t *testing.T) {
	var r room
	require.Nil(t, r.apply("ann", group("bob")))
	require.Nil(t, r.apply("bob", add("cem")))
	require.Nil(t, r.apply("ann", remove("bob")))
	members := r.state.Members
	require.Nil(t, r.apply(string(conversation.ServerUser), erase(&conversationv1.Erase{BeforeMs: 1004})))
	require.Empty(t, r.events[0].GetBody())
	state, _ := replay(r.events)
	require.Equal(t, members, state.Members)
	require.Equal(t, conversationv1.Kind_KIND_GROUP, state.Kind)
	require.Equal(t, []string{"ann", "bob"}, conversation.Joiners(r.events[0]))
	require.NoError(t, func() error { _, err := chain.From(0, chain.Zero).Next(r.events[0]); return err }())
}
