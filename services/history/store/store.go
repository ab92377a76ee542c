// Package store says what the history service asks of a database, and holds the parts of the answer that are the same for
// every database: taking a batch apart (Plan), cutting a page to what a viewer may see (Page), sharing out leases
// (Assign), merging cursors (MergeCursors). All of that is pure; the SQL is in the packages sqlite and postgres, and
// storetest holds both to the same behaviour.
//
// It knows neither gRPC nor NATS, and it decides nothing about conversations: permission and order were decided before
// an event comes here. What it does guard is the log itself: seq 1, 2, 3 … without a hole, and no command twice.
package store

import (
	"context"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// Store is one database. All methods may be called concurrently. Requests are trusted to be well formed (the server
// validates them at the edge); what only the database can tell comes back as one of this package's errors. Messages passed
// in must not be changed afterwards, not even when the call has returned early because its context ended.
//
//nolint:interfacebloat // one method for each call of the service; splitting it would only spread it
type Store interface {
	// Append commits a batch or nothing of it. In this order: a moved watermark is a *WatermarkError; commands that were
	// committed before are returned as duplicates, all of them, and nothing is committed; events that do not continue
	// their conversation's head are ErrSeqTaken. When it returns nil and no duplicates the batch is on disk. After
	// ErrUnavailable or a context's end the outcome is unknown.
	Append(ctx context.Context, batch *historyv1.AppendRequest) ([]*historyv1.Duplicate, error)
	// Watermark tells where a partition stands; the zero Watermark before the first append.
	Watermark(ctx context.Context, partition uint32) (*historyv1.Watermark, error)
	// Lease renews, releases and claims by the store's own clock; see Assign.
	Lease(ctx context.Context, request *historyv1.LeaseRequest) (*historyv1.LeaseResponse, error)
	// Leases gives all partitions with their leases, wishes and watermarks, and the workers that are live.
	Leases(ctx context.Context) (*historyv1.ListLeasesResponse, error)
	// Move stores the wish that a worker hold a partition; an empty worker takes the wish back. ErrNoWorker when it is not live.
	Move(ctx context.Context, partition uint32, worker string) error
	// Conversations gives states from one snapshot; those that do not exist are left out. ErrTooLarge when they have more
	// than MaxStateMembers members together, unless a single one was asked for.
	Conversations(ctx context.Context, ids []string) ([]*historyv1.ConversationState, error)
	// Commands gives the events that came of commands; commands that were never committed are left out. ErrTooLarge when the
	// events would be more than MaxCommandsBytes, unless a single one was asked for.
	Commands(ctx context.Context, keys []*historyv1.CommandKey) ([]*conversationv1.Event, error)
	// Read gives a page of a log. ErrNotFound when there is no such conversation or the viewer never was a member.
	// An event whose stored body cannot be decoded comes without body and commitment, so that whoever verifies the chain
	// names its seq, and everything around it can still be read.
	Read(ctx context.Context, request *historyv1.ReadRequest) (*historyv1.ReadResponse, error)
	// ListConversations gives the conversations that a user is a member of now, and since when tokens are good.
	ListConversations(ctx context.Context, request *historyv1.ListConversationsRequest) (*historyv1.ListConversationsResponse, error)
	// ListMembers gives present members. ErrNotFound when there is no such conversation or the viewer is not a member now.
	ListMembers(ctx context.Context, request *historyv1.ListMembersRequest) (*historyv1.ListMembersResponse, error)
	// Heads gives the newest seq of conversations; those that do not exist are left out.
	Heads(ctx context.Context, ids []string) ([]*historyv1.Head, error)
	// SaveCursors moves cursors forward. Each part (delivered, read) moves by itself, its time with it.
	SaveCursors(ctx context.Context, updates []*historyv1.CursorUpdate) error
	// DeadLetters gives a page of what was put aside, without payloads.
	DeadLetters(ctx context.Context, request *historyv1.ListDeadLettersRequest) (*historyv1.ListDeadLettersResponse, error)
	// DeadLetter gives one with its payload. ErrNoDeadLetter when it is not there.
	DeadLetter(ctx context.Context, key DeadLetterKey) (*historyv1.StoredDeadLetter, error)
	// DropDeadLetter forgets one for good. ErrNoDeadLetter when it is not there.
	DropDeadLetter(ctx context.Context, key DeadLetterKey) error
	// Revoke makes tokens of a user that were issued up to now worthless, and gives the time that is in force: see MaxRevocationLeadMs.
	Revoke(ctx context.Context, user string) (beforeMs int64, err error)
	// Revocations gives what was revoked after a time, at most MaxPage, oldest first.
	Revocations(ctx context.Context, request *historyv1.GetRevocationsRequest) (*historyv1.GetRevocationsResponse, error)
	// Partitions is the number of partitions that the database was made with.
	Partitions() int
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
	MaxPage = 1000
	// MaxPageBytes is the size at which a page of events ends; the event that passes it is still part of the page.
	MaxPageBytes = 1 << 20
	// MaxStateMembers keeps an answer of Conversations below the 8 MiB that a gRPC message may have.
	MaxStateMembers = 50_000
	// MaxCommandsBytes keeps an answer of Commands below it.
	MaxCommandsBytes = 4 << 20
)

// MaxRevocationLeadMs is how far the time of a revocation may run ahead of the clock. Times of revocations rise from one to
// the next, whoever is revoked: one that is stored later has a later time than all that anybody can have read before.
// So a time is enough to ask what is new, without a gap and without a repeat. When the clock is behind the newest
// revocation the time runs ahead of it, but no further than this: beyond, the clock must have been wrong, and users who
// sign in anew are not to be locked out for as long as it was. Who asks what is new misses a revocation then.
const MaxRevocationLeadMs = 60_000

// Limit is the number of items to give when a request asks for n; n is at most MaxPage.
func Limit(n uint32) int {
	if n == 0 {
		return DefaultPage
	}
	return int(n)
}
