package client

import (
	"slices"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

const (
	// Committed commands that are kept to be sent again after a fork.
	maxCommitted      = 1000
	maxCommittedBytes = 1 << 20
)

// committed is a command of this client that was committed.
type committed struct {
	conversationID, commandID string
	seq                       uint64
	body                      *conversationv1.Body
	size                      int
	// lost says that the server no longer knew the conversation after this command was committed.
	lost bool
}

// record keeps the newest committed commands, bounded in number and size; the oldest are forgotten first.
type record struct {
	commands []committed
	bytes    int
}

func (r *record) add(command committed) {
	command.size = command.body.SizeVT()
	r.commands = append(r.commands, command)
	r.bytes += command.size
	for len(r.commands) > maxCommitted || r.bytes > maxCommittedBytes {
		r.bytes -= r.commands[0].size
		r.commands[0] = committed{}
		r.commands = r.commands[1:]
	}
}

// take removes the commands of a conversation above a seq, and returns them in the order of their commit.
func (r *record) take(conversationID string, above uint64) (taken []committed) {
	kept := r.commands[:0:0]
	for _, command := range r.commands {
		if command.conversationID != conversationID || command.seq <= above {
			kept = append(kept, command)
			continue
		}
		r.bytes -= command.size
		taken = append(taken, command)
	}
	r.commands = kept
	return taken
}

// Newest is the newest seq of a committed command of a conversation; 0 for none.
func (r *record) Newest(conversationID string) (seq uint64) {
	for _, command := range r.commands {
		if command.conversationID == conversationID {
			seq = max(seq, command.seq)
		}
	}
	return seq
}

// Created reports whether the creation of a conversation is among the commands.
func (r *record) Created(conversationID string) bool {
	return slices.ContainsFunc(r.commands, func(command committed) bool {
		return command.conversationID == conversationID && command.body.GetCreate() != nil
	})
}

// MarkLost notes that the server does not know a conversation, so that its commands are undone if it comes back.
func (r *record) MarkLost(conversationID string) {
	for i := range r.commands {
		if r.commands[i].conversationID == conversationID {
			r.commands[i].lost = true
		}
	}
}

// Lost reports whether commands of a conversation were undone because the server lost the whole conversation.
func (r *record) Lost(conversationID string) bool {
	return slices.ContainsFunc(r.commands, func(command committed) bool {
		return command.conversationID == conversationID && command.lost
	})
}
