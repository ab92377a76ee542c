// Package statuspage serves one page that shows how a process is doing. A reader finds, from top to bottom: whether the process
// is ready, and what is missing if it is not; what needs attention; the way of a message as a row of stages; connections,
// partitions and the like; and charts of the last half hour, most of them folded away. It is for the moment before a dashboard is
// open, or where there is none.
//
//	series.go  one value out of the process's own metrics
//	chart.go   a curve of the last half hour
//	stage.go   rate, latency and backlog of one step on the way of a message
//	table.go   text from the service, requested each time that the page is
//	page.go    samples the metrics every five seconds, and serves the files and /status.json
//
// Everything is served by the process itself, nothing is loaded from elsewhere, and nothing is kept beyond the half hour. The page
// authenticates nobody: mount it behind the admin server, which does.
package statuspage
