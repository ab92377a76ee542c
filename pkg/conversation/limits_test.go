package conversation_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/protocol"
)

func metadata(entries map[string]string) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Metadata: entries}}}
}

func users(n int) []string {
	members := make([]string, n)
	for i := range members {
		members[i] = fmt.Sprint("u", i)
	}
	return members
}

func rising(n int) []uint64 {
	seqs := make([]uint64, n)
	for i := range seqs {
		seqs[i] = uint64(i + 1)
	}
	return seqs
}

// A body of the size of a limit is valid; a body that is larger by one is not.
func TestALimitIsTheLargestValidSize(t *testing.T) {
	for name, c := range map[string]struct {
		limit int
		body  func(n int) *conversationv1.Body
		field string
	}{
		"text":            {protocol.MaxTextBytes, func(n int) *conversationv1.Body { return text(strings.Repeat("x", n)) }, "message.text"},
		"text of an edit": {protocol.MaxTextBytes, func(n int) *conversationv1.Body { return edit(2, strings.Repeat("x", n)) }, "edit.text"},
		"name":            {protocol.MaxNameBytes, func(n int) *conversationv1.Body { return rename(strings.Repeat("x", n)) }, "rename.name"},
		"name of a new group": {protocol.MaxNameBytes, func(n int) *conversationv1.Body {
			return create(conversationv1.Kind_KIND_GROUP, strings.Repeat("x", n))
		}, "create.name"},
		"members of a new group": {protocol.MaxMembers - 1, func(n int) *conversationv1.Body { return group(users(n)...) }, "create.members"},
		"members of an addition": {protocol.MaxMembersPerAdd, func(n int) *conversationv1.Body { return add(users(n)...) }, "add_members.members"},
		"emoji":                  {protocol.MaxEmojiBytes, func(n int) *conversationv1.Body { return react(2, strings.Repeat("x", n)) }, "react.emoji"},
		"seqs of an erasure":     {protocol.MaxEraseSeqs, func(n int) *conversationv1.Body { return erase(&conversationv1.Erase{Seqs: rising(n)}) }, "erase.seqs"},
		"metadata": {protocol.MaxMetadataEntries, func(n int) *conversationv1.Body {
			entries := map[string]string{}
			for i := range n {
				entries[strconv.Itoa(i)] = ""
			}
			return metadata(entries)
		}, "message.metadata"},
		"key of metadata": {protocol.MaxMetadataKeyBytes, func(n int) *conversationv1.Body {
			return metadata(map[string]string{strings.Repeat("k", n): ""})
		}, "message.metadata"},
		"value of metadata": {protocol.MaxMetadataValueBytes, func(n int) *conversationv1.Body {
			return metadata(map[string]string{"k": strings.Repeat("v", n)})
		}, "message.metadata.k"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Nil(t, conversation.Validate("ann", c.body(c.limit)), "at the limit")
			err := conversation.Validate("ann", c.body(c.limit+1))
			require.NotNil(t, err, "above it")
			require.Equal(t, c.field, err.Field)
		})
	}
}

// A group may grow up to the limit, and no further.
func TestAGroupGrowsUpToItsLimit(t *testing.T) {
	var r room
	require.Nil(t, r.apply("ann", group(users(protocol.MaxMembers-3)...)))
	require.Equal(t, limit, r.apply("ann", add("bob", "cem", "dan")).GetCode(), "two places are left")
	require.Nil(t, r.apply("ann", add("bob", "cem")))
	require.Len(t, r.state.Members, protocol.MaxMembers)
	require.Equal(t, limit, r.apply("ann", add("dan")).GetCode())
}

// Reactions are short texts that can be seen; the texts around a valid one are refused.
func TestAReactionIsOneVisibleText(t *testing.T) {
	for _, valid := range []string{"👍", "+1", "👨‍👩‍👧"} {
		require.Nil(t, conversation.Validate("ann", react(2, valid)), "%q", valid)
	}
	for _, wrong := range []string{"", " ", "a b", "a\u00a0b", "a\nb", "a\tb", "a\x1bb", "\x00", "\xff"} {
		err := conversation.Validate("ann", react(2, wrong))
		require.NotNil(t, err, "%q", wrong)
		require.Equal(t, "react.emoji", err.Field, "%q", wrong)
	}
	require.Equal(t, "react.target", conversation.Validate("ann", react(0, "👍")).Field)
}

func TestMetadataIsText(t *testing.T) {
	require.Nil(t, conversation.Validate("ann", metadata(map[string]string{"a.B_9-z": "any\ntext"})))
	for field, entries := range map[string]map[string]string{
		"message.metadata":   {"": "a key without a name"},
		"message.metadata.k": {"k": "\xff"},
	} {
		err := conversation.Validate("ann", metadata(entries))
		require.NotNil(t, err, field)
		require.Equal(t, field, err.Field)
	}
}

// An erasure names its events in one of three ways.
func TestAnErasureIsValid(t *testing.T) {
	for name, c := range map[string]struct {
		erase *conversationv1.Erase
		field string // of the error; empty for a valid erasure
	}{
		"seqs":               {&conversationv1.Erase{Seqs: []uint64{1, 2, 9}}, ""},
		"a sender":           {&conversationv1.Erase{Sender: "ann"}, ""},
		"a time":             {&conversationv1.Erase{BeforeMs: 1}, ""},
		"nothing":            {&conversationv1.Erase{}, "erase"},
		"seqs and a sender":  {&conversationv1.Erase{Seqs: []uint64{1}, Sender: "ann"}, "erase"},
		"a sender and time":  {&conversationv1.Erase{Sender: "ann", BeforeMs: 1}, "erase"},
		"seq 0":              {&conversationv1.Erase{Seqs: []uint64{0}}, "erase.seqs"},
		"a seq twice":        {&conversationv1.Erase{Seqs: []uint64{2, 2}}, "erase.seqs"},
		"seqs that fall":     {&conversationv1.Erase{Seqs: []uint64{1, 3, 2}}, "erase.seqs"},
		"no user id":         {&conversationv1.Erase{Sender: "*"}, "erase.sender"},
		"a time before 1970": {&conversationv1.Erase{BeforeMs: -1}, "erase.before_ms"},
	} {
		t.Run(name, func(t *testing.T) {
			err := conversation.Validate(conversation.ServerUser, erase(c.erase))
			if c.field == "" {
				require.Nil(t, err)
				return
			}
			require.NotNil(t, err)
			require.Equal(t, c.field, err.Field)
		})
	}
}
