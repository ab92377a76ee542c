package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/client"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/terminal"
)

// changes are the chat commands that change a message. The first argument of each is the message's number.
var changes = []string{"/edit", "/delete", "/react", "/unreact"}

// change carries out one of the commands in changes.
func (c *chat) change(ctx context.Context, id, line string) (err error) {
	command, rest, _ := strings.Cut(line, " ")
	number, rest, _ := strings.Cut(strings.TrimSpace(rest), " ")
	rest = strings.TrimSpace(rest)
	target, parseErr := strconv.ParseUint(strings.TrimPrefix(number, "#"), 10, 64)
	if parseErr != nil || (rest == "") != (command == "/delete") {
		return fmt.Errorf("%s needs the number of a message and what the help says; see /help", command)
	}
	switch command {
	case "/edit":
		_, err = c.client.Edit(ctx, id, target, rest)
	case "/delete":
		_, err = c.client.Delete(ctx, id, target)
	case "/react":
		_, err = c.client.React(ctx, id, target, rest)
	default:
		_, err = c.client.Unreact(ctx, id, target, rest)
	}
	return err
}

// event prints an event.
func (c *chat) event(event client.Event) {
	if text := c.describe(event); text != "" {
		if event.Content == chain.NotChecked {
			text += " (not verified)"
		}
		at := time.UnixMilli(event.GetTimeMs()).Format("15:04")
		c.printf("%s [%s] %s", at, terminal.Name(c.name(event.GetConversationId())), text)
	}
	c.mu.Lock()
	reading := c.current == event.GetConversationId()
	c.mu.Unlock()
	if reading {
		c.client.MarkRead(event.GetConversationId(), event.GetSeq())
	}
}

// shownUser returns the user name that people know: the name that the token issuer uses.
func shownUser(id string) terminal.Safe {
	return terminal.Name(conversation.OriginalUser(ids.User(id)))
}

// describe returns the line for an event; empty for an own event that was printed when it was sent.
func (c *chat) describe(event client.Event) terminal.Safe {
	who, body := shownUser(event.GetSender()), event.GetBody()
	switch {
	case !slices.Contains(conversation.Kinds(), event.GetKind()):
		return terminal.Sprintf("#%d %s sent an event of a kind that this version does not know", event.GetSeq(), who)
	case event.Content == chain.Erased:
		return terminal.Sprintf("#%d %s: (erased)", event.GetSeq(), who)
	case body.GetMessage() != nil && event.GetSender() == c.me:
		return ""
	case body.GetMessage() != nil:
		return terminal.Sprintf("#%d %s: %s", event.GetSeq(), who, body.GetMessage().GetText())
	case body.GetEdit() != nil:
		return terminal.Sprintf("%s edited #%d: %s", who, body.GetEdit().GetTarget(), body.GetEdit().GetText())
	case body.GetDelete() != nil:
		return terminal.Sprintf("%s deleted #%d", who, body.GetDelete().GetTarget())
	case body.GetReact().GetRemove():
		return terminal.Sprintf("%s removed %s from #%d", who, terminal.Name(body.GetReact().GetEmoji()), body.GetReact().GetTarget())
	case body.GetReact() != nil:
		return terminal.Sprintf("%s reacted to #%d with %s", who, body.GetReact().GetTarget(), terminal.Name(body.GetReact().GetEmoji()))
	case body.GetCreate() != nil:
		return who + " created it"
	case body.GetAddMembers() != nil:
		var added []string
		for _, user := range body.GetAddMembers().GetMembers() {
			added = append(added, string(shownUser(user)))
		}
		return terminal.Sprintf("%s added %s", who, terminal.Safe(strings.Join(added, ", ")))
	case conversation.Leaver(frame.FromClient(event.Event)) != "":
		return shownUser(string(conversation.Leaver(frame.FromClient(event.Event)))) + " is out"
	case body.GetRename() != nil:
		return terminal.Sprintf("%s renamed it to %s", who, terminal.Name(body.GetRename().GetName()))
	case body.GetErase() != nil:
		return "the server erased content"
	}
	return ""
}

// forked prints that the server lost events, which of the user's own messages are lost, and what happens to commands that
// are sent again.
func (c *chat) forked(fork client.Fork) {
	c.printf("! [%s] the server lost events: its log ended at #%d and now ends at #%d; events above #%d are undone, and your own commands among them are sent again: %d",
		terminal.Name(c.name(fork.ConversationID)), fork.From, fork.To, fork.To, len(fork.Commands))
	undone := c.undo(fork)
	for _, ticket := range fork.Commands {
		text, isMessage := undone[ticket.CommandID]
		delete(undone, ticket.CommandID)
		c.watching.Go(func() { // ends with the ticket, which ends with the client
			<-ticket.Done()
			switch outcome, err := ticket.Wait(context.Background()); {
			case err != nil && isMessage:
				c.failf("\"%s\" is undone and could not be committed again: %v", text, err)
			case err != nil:
				c.failf("a command is undone and could not be committed again: %v", err)
			case isMessage:
				c.commit(outcome, ticket.CommandID, text)
			}
		})
	}
	for _, id := range slices.Sorted(maps.Keys(undone)) { // the ids rise in the order of sending
		c.failf("\"%s\" is undone, and this program does not have it any more", undone[id])
	}
}

// undo forgets the user's own messages that a fork undid, and returns their texts by command id.
func (c *chat) undo(fork client.Fork) map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	undone := map[string]string{}
	for seq, message := range c.mine[fork.ConversationID] {
		if seq > fork.To {
			delete(c.mine[fork.ConversationID], seq)
			undone[message.commandID] = message.text
		}
	}
	return undone
}
