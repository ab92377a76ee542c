package store

import (
	"context"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// Log holds the logs of conversations and where each partition stands.
type Log interface {
	// Append commits a batch or nothing of it. In this order: a watermark that is not the expected one is a *WatermarkError;
	// commands that were committed before are returned as duplicates, all of them, and nothing is committed; events that do
	// not continue their conversation's head are ErrSeqTaken, and positions that do not rise are ErrPosition. When it
	// returns nil and no duplicates the batch is on disk, with its effects, and the answer has the epoch that it is in. After
	// ErrUnavailable or a context's end the outcome is unknown.
	Append(ctx context.Context, batch *historyv1.AppendRequest) (*historyv1.AppendResponse, error)
	// Watermark tells where a partition stands; the zero Watermark before the first append.
	Watermark(ctx context.Context, partition uint32) (*historyv1.Watermark, error)
	// Commands gives the events that came of commands; commands that were never committed are left out. ErrTooLarge when the
	// events would be more than MaxCommandsBytes, unless a single one was asked for.
	Commands(ctx context.Context, keys []*historyv1.CommandKey) ([]*conversationv1.Event, error)
	// Read gives a page of a log. ErrNotFound when there is no such conversation or the viewer never was a member.
	Read(ctx context.Context, request *historyv1.ReadRequest) (*historyv1.ReadResponse, error)
	// Heads gives the newest seq of conversations; those that do not exist are left out.
	Heads(ctx context.Context, ids []string) ([]*historyv1.Head, error)
}
