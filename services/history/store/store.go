// Package store says what the history service asks of a database, and holds the parts of the answer that are the same for
// every database: taking a batch apart (Plan), cutting a page to what a viewer may see (Page), sharing out leases
// (Assign), merging cursors (MergeCursors), waking readers of the feed (Bells). All of that is pure or in memory; the SQL is
// in the packages sqlite and postgres, and storetest holds both to the same behaviour.
//
// It knows neither gRPC nor NATS, and it decides nothing about conversations: permission and order were decided before
// an event comes here, and what an event does to other rows comes with it as effects. What it does guard is the log itself:
// seq 1, 2, 3 … without a hole, no command twice, and no position twice.
//
// Each of the interfaces that Store is made of has a file of its own, with what belongs to it.
package store

import (
	"context"
	"time"

	"github.com/runnelhq/runnel/pkg/rpc"
)

// ErasureTimeout is how long an append that erases may take: it may reach all events of a conversation.
const ErasureTimeout = 2 * time.Minute

// Store is one database. All methods may be called concurrently. Requests are trusted to be well formed (the server
// validates them at the edge); what only the database can tell comes back as one of this package's errors. Messages passed
// in must not be changed afterwards, not even when the call has returned early because its context ended.
//
//nolint:interfacebloat // eleven small ones and what every database has; callers take the ones that they need
type Store interface {
	Log
	Members
	Cursors
	Views
	Refusals
	Feed
	Leases
	DeadLetters
	Revocations
	Installation
	Recovery

	// Ping reports whether the database answers.
	Ping(ctx context.Context) error
	// Stats tells how the database is doing, from memory or nearly so: it is asked at every scrape.
	Stats() Stats
	// Close finishes what is queued and releases the database. Calls after it get ErrUnavailable.
	Close() error
}

const (
	// DefaultPage is the number of items of a page when the request does not say.
	DefaultPage = 100
	// MaxPage is the most items of a page.
	MaxPage = rpc.MaxItems
	// MaxPageBytes is the size at which a page of events ends; the event that passes it is still part of the page.
	MaxPageBytes = 1 << 20
	// MaxStateMembers keeps an answer of Conversations below the 8 MiB that a gRPC message may have.
	MaxStateMembers = 50_000
	// MaxCommandsBytes keeps an answer of Commands below it.
	MaxCommandsBytes = 4 << 20
)

// Limit is the number of items to give when a request asks for n; n is at most MaxPage.
func Limit(n uint32) int {
	if n == 0 {
		return DefaultPage
	}
	return int(n)
}
