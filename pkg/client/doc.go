// Package client is the Go client of Runnel: a connection that reconnects by itself, an outbox that sends each command until its
// outcome is known, and the events of every conversation in order, each exactly once.
//
//	c, err := client.New(client.Config{URL: url, DeviceID: "laptop", Token: token, OnEvent: show})
//	err = c.Start(ctx)
//	outcome, err := c.Send(ctx, conversationID, "hello") // returns when the message is committed
//	err = c.Flush(ctx)                                   // waits for what Enqueue put into the outbox
//	err = c.Close()
//
// Guarantees:
//   - OnEvent sees every event of a conversation after its starting point in rising order without a hole, each exactly once as
//     long as the process lives. After a crash, events whose position was not saved yet (Config.Cursors) come again.
//   - Commands of one conversation are committed in the order in which they were given to the outbox: at most one is on its
//     way, and it is sent again with the same id until it is committed or refused for good.
//   - OnEvent never sees an event that contradicts the chain of hashes (package chain). Event.Content says whether the content of
//     an event was verified, was erased from the log, or has a format that is newer than this client.
//   - When the server's log of a conversation went back, the client finds the last event in common, tells the program what was
//     undone (Config.OnForked), sends its own commands again, and goes on from there.
//   - A refusal is final: a command that was refused is judged anew only when it is given to the outbox again.
//
// With Config.TracerProvider, each command has a span that ends with its outcome, and each event of a recorded trace has a span
// below those of the gateways. TraceID identifies the trace: on a Ticket, on a RefusedError and in the context of OnEvent.
//
// Ids are plain strings and positions plain uint64 in this API, because applications pass what they have: the types of package ids
// are for the code of Runnel itself.
//
// The client never stores the outbox or the events on disk, never guesses an outcome, and never logs tokens or messages.
//
// Goroutines: one reads and manages the connection, one writes, one calls the callbacks. Therefore callbacks are called one at a
// time and in order; a slow callback delays the others and the acknowledgements, but never the connection. A callback may use the
// client freely, and may wait for outcomes. But it must not call Close, which waits for the callback to return.
//
// # How it is made
//
//	Client ────────▶ session ────▶ link      one connection: dial, authenticate, read, write, silence
//	(this API)          │
//	                    ├────────▶ request   requests until they are answered: retries, timeouts
//	                    ├────────▶ outbox    commands without an outcome: their order, their attempts, and those that a fork undid
//	                    ├────────▶ inbox     all conversations: memberships, turns for reading, acknowledgements
//	                    │            └─────▶ stream   the position in one conversation's log: chain, held events, forks
//	                    └────────▶ callbacks calls to the program, in order, and the delivered positions
//
// Parts that know only frames are packages below internal and do no I/O, except link. Parts that hold types of this API (outbox,
// callbacks) are here. The parts do not know each other: session connects them through interfaces and functions.
//
// # Locks
//
// There are four, and they are taken in this order:
//
//	Client.mu      Start and Close
//	session.mu     the state, and all of request, outbox, inbox and stream, which have no locks of their own
//	link.Link.mu   the clock of one connection and why it ends
//	callbacks.mu   the queue of callbacks
//
// The last two are never held while another is taken. No callback, no Token, no Dial and no Cursors is called under a lock; spans
// are started and ended under session.mu. A method whose name ends in Locked requires the lock of its type. The parts without a
// lock are called only under session.mu, and make their calls back under it.
package client
