package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/client"
)

func TestContentThatWasNotCheckedIsMarked(t *testing.T) {
	message := func(sender string) *clientv1.Event {
		return &clientv1.Event{
			ConversationId: "c", Seq: 7, Sender: sender, Kind: conversationv1.EventKind_EVENT_KIND_MESSAGE,
			Body: &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: "hello"}}},
		}
	}
	newer := message("bob")
	newer.Kind = 99
	for _, test := range []struct {
		event   *clientv1.Event
		content chain.Content
		want    string
	}{
		{message("bob"), chain.Verified, "[c] #7 bob: hello\n"},
		{message("bob~40example~2Ecom"), chain.Verified, "[c] #7 bob@example.com: hello\n"},
		{message("bob"), chain.NotChecked, "[c] #7 bob: hello (not verified)\n"},
		{message("bob"), chain.Erased, "[c] #7 bob: (erased)\n"},
		{newer, chain.NotChecked, "[c] #7 bob sent an event of a kind that this version does not know (not verified)\n"},
		{message("alice"), chain.NotChecked, ""}, // printed when it was sent, so not again
	} {
		var out strings.Builder
		ch := newChat("alice", &out, 0)
		ch.event(client.Event{Event: test.event, Content: test.content})
		_, shown, _ := strings.Cut(out.String(), " ") // the text after the time
		require.Equal(t, test.want, shown)
	}
}

// What is undone and cannot be sent again is named, in the order in which it was sent; what stays is not.
func TestAForkNamesTheMessagesThatAreGone(t *testing.T) {
	var out strings.Builder
	ch := newChat("alice", &out, 0)
	for seq, text := range []string{"stays", "first", "second"} {
		ch.commit(&conversationv1.Outcome{ConversationId: "c", Seq: uint64(seq + 2)}, string(rune('1'+seq)), text)
	}
	out.Reset()
	ch.forked(client.Fork{ConversationID: "c", From: 4, To: 2})
	require.Equal(t, "! [c] the server lost events: its log ended at #4 and now ends at #2; events above #2 are undone, and your own commands among them are sent again: 0\n"+
		"! \"first\" is undone, and this program does not have it any more\n"+
		"! \"second\" is undone, and this program does not have it any more\n", out.String())
	require.Equal(t, 2, ch.failures)
	out.Reset()
	ch.receipt(&conversationv1.Receipt{ConversationId: "c", Members: 2, Read: []*conversationv1.Step{{Seq: 9, Members: 2}}})
	require.Equal(t, "  ✓✓ read 1 of 1: stays\n", out.String())
}
