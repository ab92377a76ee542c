// Package gateway terminates client connections. It authenticates them, checks shape, size and rate of what they say,
// takes commands to the broker, and pushes the events of their conversations to them in order.
//
// It never writes to the store and never decides the order or the permission of a command. All it holds can be lost: a
// client that loses its gateway resumes by seq on another.
//
// How an event reaches a client:
//
//	live.<conversation> ──▶ room (one per conversation with members connected here)
//	                          │ takes events strictly by seq; a gap is read from history first
//	                          ▼
//	                        seats (one per connection in the room): live, or behind
//	                          │ live: the ready-made frame goes straight to the socket
//	                          ▼ behind: the connection's filler reads from the room's recent events or from history
//	                        conn (send queue bounded in bytes; a writer only while the socket is full)
//
// Resuming, filling a gap and sending again what was not acknowledged are one mechanism: a seat is put behind, at some
// seq, and its filler brings it up to the room's head.
//
// What is read from history is checked for holes before it is pushed (page), and a client whose position is on another branch
// of the log than the store's is told so (fork).
//
// Commands are admitted up to the installation's protocol level (installation, submit); from then on their bodies are bytes.
//
// What a connection does not acknowledge is sent again from here, not by the delivery service: the gateway knows for each
// device what was sent and acknowledged, delivery only knows users.
//
// What operators see: counters (metrics), spans of sampled messages (trace, follow), the last steps of every event
// (recorder, explain), connections and conversations as they are now (server, debug).
//
// Locks: hub.mu before room.mu before conn.sendMu; conn.mu is never held while any of them is taken. The locks of recorder,
// endings and delivery are taken last: nothing is called while one of them is held.
package gateway
