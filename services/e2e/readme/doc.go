// Package readme checks README.md and deploy/README.md against the programs that they describe. It has tests only.
//
//	fence.go         the fenced blocks of a page
//	shell.go         runs the blocks of shell commands, with recorders instead of programs
//	check.go         compares the recorded commands with the programs, the Makefile and the chart
//	dialog_test.go   sends the JSON frames of a page to a server
package readme
