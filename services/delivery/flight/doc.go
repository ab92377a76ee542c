// Package flight keeps what happened to commands and events on their way through a worker: the recorder answers "what became
// of this event" from memory, the traces of a batch put spans into the senders' traces. Nothing here decides anything.
package flight
