package client

import (
	"slices"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

const (
	// Limits of the committed commands that are kept to be sent again after a fork.
	maxCommitted      = 1000
	maxCommittedBytes = 1 << 20
)

// committedCommand is a command of this client that was committed.
type committedCommand struct {
	conversationID, commandID string
	seq                       uint64
	body                      *conversationv1.Body
	size                      int
	// lost means that the server no longer knew the conversation after this command was committed.
	lost bool
}

// committedCommands keeps the newest committed commands of this client, bounded in number and size. The oldest commands
// are dropped first.
type committedCommands struct {
	commands []committedCommand
	bytes    int
}

func (c *committedCommands) add(command committedCommand) {
	command.size = command.body.SizeVT()
	c.commands = append(c.commands, command)
	c.bytes += command.size
	for len(c.commands) > maxCommitted || c.bytes > maxCommittedBytes {
		c.bytes -= c.commands[0].size
		c.commands[0] = committedCommand{}
		c.commands = c.commands[1:]
	}
}

// removeAbove removes the commands of a conversation above a seq, and returns them in commit order.
func (c *committedCommands) removeAbove(conversationID string, above uint64) (removed []committedCommand) {
	kept := c.commands[:0:0]
	for _, command := range c.commands {
		if command.conversationID != conversationID || command.seq <= above {
			kept = append(kept, command)
			continue
		}
		c.bytes -= command.size
		removed = append(removed, command)
	}
	c.commands = kept
	return removed
}

// Newest returns the seq of the newest committed command of a conversation; 0 if there is none.
func (c *committedCommands) Newest(conversationID string) (seq uint64) {
	for _, command := range c.commands {
		if command.conversationID == conversationID {
			seq = max(seq, command.seq)
		}
	}
	return seq
}

// Created reports whether the client still has the command that created a conversation.
func (c *committedCommands) Created(conversationID string) bool {
	return slices.ContainsFunc(c.commands, func(command committedCommand) bool {
		return command.conversationID == conversationID && command.body.GetCreate() != nil
	})
}

// MarkLost records that the server no longer knows a conversation. If the conversation is
// created again, it has a new log, and the commands of the former log no longer count as committed.
func (c *committedCommands) MarkLost(conversationID string) {
	for i := range c.commands {
		if c.commands[i].conversationID == conversationID {
			c.commands[i].lost = true
		}
	}
}

// Lost reports whether commands of a conversation were undone because the server lost the whole conversation.
func (c *committedCommands) Lost(conversationID string) bool {
	return slices.ContainsFunc(c.commands, func(command committedCommand) bool {
		return command.conversationID == conversationID && command.lost
	})
}
