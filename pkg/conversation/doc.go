// Package conversation contains the rules of conversations: the form of ids, what a command may contain, and apply, the
// pure function that turns a conversation's state and a command into an event or a refusal.
//
// It is the only place where permission and order are decided. It has no clock, no randomness and no I/O: everything that
// state and command do not determine (time, salt, the messages that a command refers to) is an argument. Every delivery
// worker that applies the same commands in the same order therefore makes the same log.
//
// Each kind of command is one file and one row of the table in kinds.go; README.md describes how to add one. No other
// package switches over the kinds of a Body.
package conversation
