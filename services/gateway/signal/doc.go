// Package signal is the place of what is live and never stored: typing, presence, progress of a stream. There are no signals yet.
// They will reach sessions beside rooms, under a budget of their own for each link and conversation, and are dropped for slow
// links before anything else is.
package signal
