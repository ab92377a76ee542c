// Package skew proves that parts of different versions never hurt each other (promise 8). It makes the next version of
// Runnel from the workspace, with one more kind of command and one more field of a message. Then it runs every mix of gateway,
// worker, history and client of both versions, raises the level, and tries to roll back.
//
// The torture run also uses this next version, and mixes both versions under load.
//
// The additions of the next version are in testdata/: one file of rules, the row of the table, and the lines of the proto. It is part of
// the proof that a new kind needs no other changes.
package skew
