// Package messagepath counts what one message costs on its way through standalone: wake-ups of goroutines, system calls,
// allocations, and bytes, each by the stage of the path that causes them. Times depend on the machine; these counts hardly do.
//
//	path.go    Measure: the rounds
//	server.go  standalone in this process, and the groups whose members talk
//	stage.go   the stages, and how a call stack is assigned to one
//	trace.go   wake-ups and system calls from an execution trace
//	heap.go    allocations from the heap profile
//	seam.go    bytes to and from clients and files
//	table.go   the result, as text and for README.md
//
// The parts of standalone are the real ones, with SQLite and JetStream on disk and WebSocket clients over the loopback interface.
// Messages are sent one after the other and slowly enough that none shares work with the next.
package messagepath
