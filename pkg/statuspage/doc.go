// Package statuspage shows on one page how a process is doing: what the last half hour's rates were, and who is connected
// or who owns what right now. It is for the moment before a dashboard is open, or where there is none.
//
// Charts are drawn from the process's own metrics, which the page samples every five seconds; tables are asked for when
// somebody looks. Everything is served by the process itself, nothing is loaded from elsewhere, and nothing is kept beyond
// the half hour. It never asks who is looking: mount it behind the admin server, which does.
package statuspage
