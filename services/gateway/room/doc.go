// Package room distributes the events of conversations to the sessions on this gateway that are subscribed to them. A room is
// itself a reader of the log: it takes events strictly by seq. Therefore it knows the members at every event, and no user receives an
// event from a time when they were not a member.
//
//	live.<conversation> ──▶ Hub ──▶ Room (one per conversation with a subscription here)
//	                                  │ takes events strictly by seq; a gap is read from history first
//	                                  ▼
//	                                Subscription (one per session in the room): live, or behind
//	                                  │ live: the ready-made message goes straight to the session's link
//	                                  ▼ behind: the session calls FillOnce, which takes recent events or reads history
//	                                Listener: the session, as the room sees it
//
// Resuming, filling a gap and sending unacknowledged events again use one mechanism: a subscription is marked as behind, at some
// seq, and filling brings it up to the room's head.
//
// Events read from history are checked for holes before they are pushed (page.go). A client whose position is on another branch
// of the log than the store's is notified (fork.go).
//
// Past reads and sends the events of ended memberships. Package stretch decides what is sent; the session calls Past.
//
// The package never knows a session, a transport, a token or an operator.
//
// Locks: Hub.mu before Room.mu before the lock of a Sender. A Subscriber is called with the room's lock held, and never calls a
// room. Methods that end in Locked need the lock of their receiver; those of Subscription need the room's.
package room
