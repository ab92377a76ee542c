// Package signal is reserved for live data that is never stored: typing, presence, progress of a stream. There are no signals
// yet. They will reach sessions independently of rooms, with a separate budget for each link and conversation. On a slow link
// they are dropped before anything else.
package signal
