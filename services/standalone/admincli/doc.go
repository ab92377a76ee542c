// Package admincli is `runnel admin`: it lets an operator query and control a running installation from a terminal.
//
//	admincli.go       the command, its connection, exit codes
//	page.go           how answers are printed: aligned tables, or one JSON object with --json
//	errors.go         errors that tell the operator what to do next
//	status.go, connections.go, users.go, conversations.go, verify.go, partitions.go, deadletters.go, explain.go,
//	level.go, erase.go, backup.go
//	                  one file for each group of commands
//
// Every command is one call of the AdminService (proto/runnel/admin/v1), which any delivery worker answers, or one call per
// page. The package decides nothing, has no state, and calls no other service.
package admincli
