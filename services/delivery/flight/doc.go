// Package flight records commands and events on their way through a worker. The recorder keeps the history of recent
// events in memory. The traces of a batch add spans to the senders' traces. The package decides nothing.
package flight
