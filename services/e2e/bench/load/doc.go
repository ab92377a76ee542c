// Package load plays thousands of clients from one goroutine, so that a benchmark measures the server and not itself.
//
// It speaks the client protocol as runnel.v1.json over WebSocket, by hand: one epoll loop reads all connections through one
// buffer, finds the ends of frames and lines, and takes from an event only what it needs: conversation, seq, and the time
// that the sender wrote into the text. It behaves as the SDKs do where the server notices: it acknowledges cumulatively, at most
// every 200 ms, answers heartbeats and resumes by seq. It checks that each connection gets its conversation whole and in
// order; whatever is wrong is kept as a failure.
//
// It never decodes JSON, never verifies the hash chain, and has one conversation to a connection. It needs Linux.
package load
