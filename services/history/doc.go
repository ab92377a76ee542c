// Package history is the history service: the gRPC server in front of the store. It validates requests, measures calls, and
// translates the store's errors into gRPC codes; it does nothing else.
//
// It does not use NATS or client connections, and decides nothing about conversations: delivery has ordered and permitted
// the events of an Append, and each event carries its changes of other rows as effects. Neighbours: package store contains
// the interfaces of the database and their two implementations, package ledger the record of erasures, package rebuild the
// rebuilding of views.
//
//	server.go            the log: the frequent calls of delivery and gateways
//	views.go             facts, current messages, refusals
//	feed.go              the feed and its cursors
//	installation.go      the protocol level and backup marks
//	operators.go         leases, dead letters and revocations
//	erasures.go          the record that is written before an erasure is committed
//	backup.go            copies of a SQLite database
//	restore.go           what a database needs that went back in time
//	validate*.go         the validation of requests
//	errors.go            the translation of errors to gRPC codes
//	metrics.go           the metrics
//	config.go            the selection of the database
package history
