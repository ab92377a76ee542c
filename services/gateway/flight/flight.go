// Package flight remembers and traces what happens to events on a gateway: the last steps of each (Recorder), the connections
// that ended lately (ClosedLog) and the spans of sampled messages (Tracer). It explains after the fact why a user did or did
// not get an event.
//
// It knows numbers, keys and ids; it never knows a connection, a room or the network, and nothing waits for it. Its locks are
// taken last: nothing is called while one of them is held.
package flight
