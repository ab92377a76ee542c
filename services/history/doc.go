// Package history is the history service: the gRPC server in front of the store. It says what is wrong with a request,
// measures, and turns the store's errors into gRPC codes; that is all it does.
//
// It knows neither NATS nor connections, and it decides nothing about conversations: what comes to Append has been
// ordered and permitted by delivery, and what an event does to other rows comes with it as effects. Neighbours: package store
// holds the interfaces of the database and their two implementations, package ledger the record of erasures, package rebuild makes
// views anew.
//
//	server.go            the log: what delivery and gateways call all the time
//	views.go             facts, messages as they are now, refusals
//	feed.go              the feed and its cursors
//	installation.go      the protocol level and backup marks
//	operators.go         leases, dead letters and revocations
//	erasures.go          what is recorded before an erasure is committed
//	validate*.go         what a request must look like
//	errors.go            errors to gRPC codes, once
//	metrics.go           what is measured
//	config.go            which database
package history
