// Package bench measures Runnel: every row of the table of targets as a scenario, against real processes with all fsyncs on,
// in one process and as separate services on PostgreSQL.
//
//	config.go      the options
//	bench.go       Run: the scenarios one after the other, each against a system of its own
//	system.go      starting a system, and measuring its cost
//	crowd.go       users in groups, connected and listening
//	scenario_*.go  the measurements
//	rows.go        all rows and figures, with targets and comparable systems
//	report.go, markdown.go  medians and ranges, JSON, the table of README.md
//	load/          the load generator
//
// A benchmark never fails because something was slow. It fails when a run was wrong: an event missing, out of order or of
// somebody else's conversation, a send refused, a connection lost.
package bench
