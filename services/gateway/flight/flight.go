// Package flight records and traces what happens to events on a gateway: the last steps of each event (Recorder), the
// connections that ended recently (ClosedLog) and the spans of sampled messages (Tracer). It answers afterwards why a user
// did or did not get an event.
//
// It knows numbers, keys and ids, but no connection, room or network. It never blocks. Its locks are innermost: it calls no
// other code while it holds one of them.
package flight
