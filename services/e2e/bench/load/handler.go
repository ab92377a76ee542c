package load

import "time"

// Handler receives the events of a loop's connections. Its methods run on the loop: they must not block. Every time is that
// of Now, taken when the bytes were read.
type Handler interface {
	// Event receives an event of the client's conversation, the next one after its position. The event is valid until Event
	// returns.
	Event(c *Client, seq uint64, event []byte, now int64)
	// Outcome receives the answer to a Submit: committed as seq, or refused with seq 0.
	Outcome(c *Client, sent int64, seq uint64, now int64)
	// Connected is called when the client is authenticated.
	Connected(c *Client, now int64)
	// Closed is called when the server has closed the connection. A handler that does not expect this returns an error,
	// which counts as a failure.
	Closed(c *Client, reason string, now int64) error
}

// Now is the clock of a load: nanoseconds since the process began, never 0.
func Now() int64 { return int64(time.Since(begun)) + 1 }

var begun = time.Now()
