package store

import (
	"context"

	"github.com/runnelhq/runnel/pkg/ids"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// Log stores the logs of conversations and the watermarks of partitions.
type Log interface {
	// Append commits a batch completely, or not at all. It makes these checks in order. If the watermark is not the
	// expected one, it returns a *WatermarkError. If commands were committed before, it returns all of them as duplicates
	// and commits nothing. If events do not continue their conversation's head, it returns ErrSeqTaken; if positions do
	// not rise, ErrPosition. If it returns no error and no duplicates, the batch is on disk with its effects, and the
	// answer contains the epoch of the batch. After ErrUnavailable or the end of the context the outcome is unknown.
	Append(ctx context.Context, batch *historyv1.AppendRequest) (*historyv1.AppendResponse, error)
	// Watermark returns the watermark of a partition; the zero Watermark before the first append.
	Watermark(ctx context.Context, partition ids.Partition) (*historyv1.Watermark, error)
	// Commands returns the events of commands; commands that were never committed are left out. ErrTooLarge if the events
	// would be larger than MaxCommandsBytes, unless only one was requested.
	Commands(ctx context.Context, keys []*historyv1.CommandKey) ([]*conversationv1.Event, error)
	// Read returns a page of a log. ErrNotFound if there is no such conversation or the viewer never was a member.
	Read(ctx context.Context, request *historyv1.ReadRequest) (*historyv1.ReadResponse, error)
	// Heads returns the newest seq of conversations; conversations that do not exist are left out.
	Heads(ctx context.Context, ids []string) ([]*historyv1.Head, error)
}
