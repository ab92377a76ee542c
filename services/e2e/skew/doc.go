// Package skew proves that parts of different versions never hurt each other (promise 8). It makes the next version of
// Runnel from the workspace: one more kind of command, one more field of a message. Then it runs every mix of gateway,
// worker, history and client of both versions, raises the level, and tries to roll back.
//
// The torture run uses the next version from here, too, and mixes both under load.
//
// The additions of the next version are in testdata/: one file of rules, the row, and the lines of the proto. It is part of
// the proof that this is all a new kind needs.
package skew
