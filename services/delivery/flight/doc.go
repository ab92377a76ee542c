// Package flight records commands and events on their way through a worker: the recorder answers from memory what happened to an
// event; the traces of a batch add spans to the senders' traces. The package decides nothing.
package flight
