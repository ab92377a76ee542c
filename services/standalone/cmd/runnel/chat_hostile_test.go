package main

import (
	"bytes"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/client"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/terminal"
	"github.com/runnelhq/runnel/pkg/terminal/terminaltest"
)

// hostileBodies are bodies of every kind whose texts are hostile.
func hostileBodies() []*conversationv1.Body {
	const evil = terminaltest.Hostile
	return []*conversationv1.Body{
		{Action: &conversationv1.Body_Create{Create: &conversationv1.Create{Name: evil, Members: []string{evil}}}},
		{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: evil}}},
		{Action: &conversationv1.Body_AddMembers{AddMembers: &conversationv1.AddMembers{Members: []string{evil, evil}}}},
		{Action: &conversationv1.Body_RemoveMember{RemoveMember: &conversationv1.RemoveMember{Member: evil}}},
		{Action: &conversationv1.Body_Leave{Leave: &conversationv1.Leave{}}},
		{Action: &conversationv1.Body_Rename{Rename: &conversationv1.Rename{Name: evil}}},
		{Action: &conversationv1.Body_Edit{Edit: &conversationv1.Edit{Target: 1, Text: evil}}},
		{Action: &conversationv1.Body_Delete{Delete: &conversationv1.Delete{Target: 1}}},
		{Action: &conversationv1.Body_React{React: &conversationv1.React{Target: 1, Emoji: evil}}},
		{Action: &conversationv1.Body_React{React: &conversationv1.React{Target: 1, Emoji: evil, Remove: true}}},
		{Action: &conversationv1.Body_Erase{Erase: &conversationv1.Erase{Sender: evil}}},
	}
}

// TestNothingHostileReachesTheTerminal shows everything that other people and servers can send.
func TestNothingHostileReachesTheTerminal(t *testing.T) {
	const evil = terminaltest.Hostile
	var out bytes.Buffer
	check := func(what string) {
		t.Helper()
		require.NotEmpty(t, out.String(), what)
		require.NoError(t, terminaltest.Check(out.String()), what)
		out.Reset()
	}
	ch := newChat("alice", &out, 0)
	for _, conv := range []*clientv1.Conversation{
		{ConversationId: evil, Peer: evil}, {ConversationId: evil + "2", Name: evil}, {ConversationId: evil + "3"},
	} {
		ch.attached(conv)
	}
	ch.current = ""
	ch.list()
	check("/list")

	shown := map[conversationv1.EventKind]bool{}
	for _, body := range hostileBodies() {
		kind := conversation.KindOf(body)
		shown[kind] = true
		encoded, err := body.MarshalVT()
		require.NoError(t, err)
		for _, content := range []chain.Content{chain.Verified, chain.NotChecked, chain.Erased} {
			for _, id := range []string{evil, evil + "2", evil + "4"} {
				event := &clientv1.Event{ConversationId: id, Seq: 7, Sender: evil, Kind: kind, Body: body, BodyBytes: encoded}
				ch.event(client.Event{Event: event, Content: content})
				check(kind.String())
			}
		}
	}
	for _, kind := range conversation.Kinds() {
		require.True(t, shown[kind], "add a body of kind %d", kind)
	}
	ch.event(client.Event{Event: &clientv1.Event{ConversationId: evil, Seq: 7, Sender: evil, Kind: 999}})
	check("a newer kind")

	ch.commit(&conversationv1.Outcome{ConversationId: evil, Seq: 7}, evil, evil)
	check("a tick")
	ch.receipt(&conversationv1.Receipt{ConversationId: evil, Members: 2, Read: []*conversationv1.Step{{Seq: 9, Members: 2}}})
	check("a receipt")
	ch.detached(&clientv1.Detached{ConversationId: evil})
	check("detached")
	ch.forked(client.Fork{ConversationID: evil + "2", From: 9, To: 7})
	check("a fork")
	ch.forked(client.Fork{ConversationID: evil, From: 9, To: 3})
	check("a message that is gone")
	ch.failf("%v", &client.RefusedError{Message: evil, Field: evil})
	check("a refusal")
	ch.printf("! the log does not verify: %v", &chain.Broken{ConversationID: evil, Seq: 7, Reason: evil})
	check("a broken log")

	require.NoError(t, terminal.Fprintf(&out, "runnel: %v\n", errors.Join(errors.New(evil), &client.ClosedError{Reason: evil})))
	check("an error at the end")

	for _, asJSON := range []bool{false, true} {
		v := verifyCommand{JSON: asJSON}
		require.NoError(t, v.report(&out, evil, counts{}, &chain.Broken{ConversationID: evil, Seq: 7, Reason: evil}))
		printed := bytes.ReplaceAll(out.Bytes(), []byte("\u0301"), nil) // JSON keeps how many there are
		require.NoError(t, terminaltest.Check(string(printed)))
		out.Reset()
	}
}
