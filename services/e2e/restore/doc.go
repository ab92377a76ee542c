// Package restore tests backups and restores from end to end: real programs, the commands of README.md and deploy/README.md as
// they stand there, and clients that were connected or away meanwhile. It has tests only.
//
//	machine_test.go     one installation and its operator: runnel in one process, or services with NATS and PostgreSQL
//	commands_test.go    the commands of the two pages
//	person_test.go      one user's program: a Go client with the view that it makes of the log
//	restore_test.go     the table of what went back, in both modes
//	chat_test.go        what a person at a terminal sees
//	page_test.go        what a person with the chat page sees
package restore
