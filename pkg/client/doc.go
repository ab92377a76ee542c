// Package client is the Go client of Runnel: a connection that comes back by itself, an outbox that sends each command until
// its outcome is known, and for every conversation the events in order, each once.
//
//	c, err := client.New(client.Config{URL: url, DeviceID: "laptop", Token: token, OnEvent: show})
//	err = c.Start(ctx)
//	outcome, err := c.Send(ctx, conversationID, "hello") // returns when it is committed
//	err = c.Close()
//
// What it promises:
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
// With Config.TracerProvider, each command is a span that ends with its outcome, and each event of a recorded trace one that hangs
// below what the gateways did; TraceID names the trace, on a Ticket, on a RefusedError and in the context of OnEvent.
//
// What it never does: keep the outbox or the events on disk, guess an outcome, or log tokens and messages.
//
// Goroutines: one reads and owns the connection's life, one writes, one calls the callbacks. Callbacks are therefore called
// one at a time and in order; one that takes long delays the others and the acknowledgements, never the connection. A callback
// may use the client freely, waiting for outcomes included, except that it must not call Close, which waits for it.
package client
