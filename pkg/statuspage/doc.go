// Package statuspage serves one page that shows the state of a process. It shows, from top to bottom: whether the process
// is ready, and otherwise why not; problems that need attention; the path of a message as a row of stages; connections,
// partitions and similar tables; and charts of the last half hour, most of them folded. It is for the time before a dashboard is
// open, and for installations without a dashboard.
//
//	series.go  one value from the process's own metrics
//	chart.go   a curve of the last half hour
//	stage.go   rate, latency and backlog of one step on a message's path
//	table.go   text from the service, made for each request of the page
//	page.go    samples the metrics every five seconds, and serves the files and /status.json
//
// The process itself serves everything; the page loads nothing from other hosts, and keeps no data beyond half an hour. The page
// does not authenticate users: mount it behind the admin server, which does.
package statuspage
