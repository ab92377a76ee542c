// Package skew proves that parts of different versions never hurt each other (promise 8). It makes the next version of
// Runnel from the workspace: one more kind of command, one more field of a message. Then it runs every mix of gateway,
// worker, history and client of both versions, raises the level, and tries to roll back.
//
// The torture run takes the next version from here, too, and mixes both under load.
//
// What the next version adds is in testdata/: one file of rules, the row, and the lines of the proto. That it is no more
// is part of the proof.
package skew
