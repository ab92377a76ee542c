// Package sizing computes what an installation of a given load needs: processors, memory, disks and network of each part, and which
// limit it meets first. It computes with figures of the benchmark (figures.json, written by make bench), and with a few estimates that
// are named in estimates.go. The result is good to a factor of about two: measure before you buy. At low rates a message costs
// several times as much CPU as the figures say, because messages share no commits.
package sizing
