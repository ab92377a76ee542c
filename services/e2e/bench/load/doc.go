// Package load simulates thousands of clients on one goroutine, so that a benchmark measures the server and not the load
// generator.
//
// It implements the client protocol as runnel.v1.json over WebSocket itself. One epoll loop reads all connections through
// one buffer, and finds the ends of frames and lines. Of an event it reads only the conversation, the seq, and the time
// that the sender wrote into the text. Where the server can notice a difference, it behaves like the SDKs: it
// acknowledges cumulatively, at most every 200 ms, answers heartbeats and resumes by seq. It checks that each connection
// gets its conversation completely and in order, and records every fault as a failure.
//
// It never decodes JSON and never verifies the hash chain, and each connection has one conversation. It requires Linux.
package load
