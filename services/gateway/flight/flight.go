// Package flight remembers and traces what happens to events on a gateway: the last steps of each (Recorder), the connections
// that ended recently (ClosedLog) and the spans of sampled messages (Tracer). It explains afterwards why a user did or did not
// get an event.
//
// It knows numbers, keys and ids, but no connection, room or network. Nothing waits for it. Its locks are taken
// last: it calls nothing while it holds one of them.
package flight
