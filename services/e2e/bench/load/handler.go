package load

import "time"

// Handler receives the events of a loop's connections. Its methods run on the loop, so they must not block. Times are
// values of Now, taken when the bytes were read.
type Handler interface {
	// Event receives the event of the client's conversation that follows the client's position. The slice is valid until
	// Event returns.
	Event(c *Client, seq uint64, event []byte, now int64)
	// Outcome receives the answer to a Submit: seq is the committed seq, or 0 if the message was refused.
	Outcome(c *Client, sent int64, seq uint64, now int64)
	// Connected is called when the client is authenticated.
	Connected(c *Client, now int64)
	// Closed is called when the server has closed the connection. If the handler did not expect this, it returns an
	// error, which counts as a failure.
	Closed(c *Client, reason string, now int64) error
}

// ReceiptHandler is a Handler that also receives receipts.
type ReceiptHandler interface {
	Handler
	// Receipt receives a receipt's highest delivered position and how many members have reached it.
	Receipt(c *Client, delivered uint64, members int)
}

// Now returns the time on the clock of a load: nanoseconds since the process began, never 0.
func Now() int64 { return int64(time.Since(begun)) + 1 }

var begun = time.Now()
