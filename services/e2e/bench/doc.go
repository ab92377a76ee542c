// Package bench measures Runnel. Every row of the table of targets is a scenario, run against real processes with all fsyncs on,
// in one process and as separate services on PostgreSQL.
//
//	config.go      the options
//	bench.go       Run: the scenarios one after the other, each against a system of its own
//	compare.go     Compare: the scenarios on several builds in turn
//	build.go       the programs that are measured, with their settings
//	system.go      starting a system, and measuring its cost
//	crowd.go       users in groups of their own, connected and listening
//	assembly.go    users in several groups each
//	scenario_*.go  the measurements
//	rows.go        all rows and figures, with targets and comparable systems
//	report.go, markdown.go  medians and ranges, JSON, the table of README.md
//	load/          the load generator
//	messagepath/   not times but counts: what one message costs, by stage
//
// A benchmark never fails because a result is slow. It fails if a run is incorrect: an event is missing, out of order or from
// another conversation, a send is refused, or a connection is lost.
package bench
