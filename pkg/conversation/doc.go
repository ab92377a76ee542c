// Package conversation holds the rules of conversations: what ids look like, what a command may contain, and apply, the
// pure function that turns a conversation's state and a command into an event or a refusal.
//
// It is the one place where permission and order are decided. It has no clock, no randomness and no I/O: everything that
// state and command do not determine (time, salt) comes in as an argument. Every delivery worker that applies the same
// commands in the same order therefore gets the same log, and a worker that takes over repeats nothing differently.
package conversation
