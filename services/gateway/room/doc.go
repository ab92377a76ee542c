// Package room fans the events of conversations out to those who listen on this gateway. A room is itself a reader of the log: it
// takes events strictly by seq, so membership is right at every event, and nobody gets an event of a time when they were no
// member.
//
//	live.<conversation> ──▶ Hub ──▶ Room (one per conversation with a subscription here)
//	                                  │ takes events strictly by seq; a gap is read from history first
//	                                  ▼
//	                                Subscription (one per session in the room): live, or behind
//	                                  │ live: the ready-made message goes straight to the session's link
//	                                  ▼ behind: the session calls FillOnce, which takes recent events or reads history
//	                                Listener: what a room knows of a session
//
// Resuming, filling a gap and sending again what was not acknowledged are one mechanism: a subscription is put behind, at some
// seq, and filling brings it up to the room's head.
//
// What is read from history is checked for holes before it is pushed (page.go), and a client whose position is on another branch
// of the log than the store's is told so (fork.go).
//
// The package never knows a session, a transport, a token or an operator.
//
// Locks: Hub.mu before Room.mu before the lock of a Sender. A Subscriber is called with the room's lock held, and never calls a
// room back. Methods that end in Locked need the lock of their receiver; methods of Subscription that do need the room's.
package room
