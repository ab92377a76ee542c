// Package store contains the interface of the database that the history service needs, and the parts that are the same for
// every database: dividing a batch (Plan), cutting a page to the events that a viewer may see (Page), assigning leases
// (Assign), merging cursors (MergeCursors), waking readers of the feed (Bells). All of these are pure or in memory; the SQL
// is in the packages sqlite and postgres, and storetest checks that both behave in the same way.
//
// It does not use gRPC or NATS, and decides nothing about conversations: permission and order were decided before an
// event reaches the store, and each event carries its changes of other rows as effects. The package itself protects the log: seq
// 1, 2, 3 … without a hole, no command twice, and no position twice.
//
// Each interface that Store embeds has its own file, together with its types.
package store

import (
	"context"
	"time"

	"github.com/runnelhq/runnel/pkg/rpc"
)

// ErasureTimeout is the time limit of an append that erases: it may affect all events of a conversation.
const ErasureTimeout = 2 * time.Minute

// Store is one database. All methods may be called concurrently. Requests must be valid (the server validates them);
// conditions that only the database can check are returned as one of this package's errors. Messages passed in must not be
// changed afterwards, not even if the call has returned early because its context ended.
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

	// Ping reports whether the database can be read and written now: it writes a small row and waits for the commit. It
	// fails on a full disk, on a standby and with a writer that hangs.
	Ping(ctx context.Context) error
	// Stats returns the statistics of the database, almost only from memory, because it is called at every scrape.
	Stats() Stats
	// Close finishes queued writes and releases the database. Later calls return ErrUnavailable.
	Close() error
}

const (
	// DefaultPage is the number of items of a page if the request does not specify it.
	DefaultPage = 100
	// MaxPage is the maximum number of items of a page.
	MaxPage = rpc.MaxItems
	// MaxPageBytes is the size at which a page of events ends; the event that exceeds this size is still part of the
	// page.
	MaxPageBytes = 1 << 20
	// MaxStateMembers keeps an answer of Conversations below 8 MiB, the limit of a gRPC message.
	MaxStateMembers = 50_000
	// MaxCommandsBytes keeps an answer of Commands below 8 MiB, the limit of a gRPC message.
	MaxCommandsBytes = 4 << 20
)

// Limit returns the number of items to return for a request for n items; n is at most MaxPage.
func Limit(n uint32) int {
	if n == 0 {
		return DefaultPage
	}
	return int(n)
}
