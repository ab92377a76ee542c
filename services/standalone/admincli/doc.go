// Package admincli is `runnel admin`: what an operator asks and orders of a running installation at a terminal.
//
//	admincli.go       the command, its connection, exit codes
//	page.go           how answers look: aligned tables, or one JSON object with --json
//	errors.go         errors that say what to do next
//	status.go, connections.go, users.go, conversations.go, verify.go, partitions.go, deadletters.go, explain.go,
//	level.go, erase.go, backup.go
//	                  one file for each group of commands
//
// Every command is one question to the AdminService (proto/runnel/admin/v1), which any delivery worker answers, or as many as it
// takes to turn its pages. The package decides nothing, keeps nothing, and talks to nothing else.
package admincli
