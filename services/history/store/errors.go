package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/runnelhq/runnel/pkg/ids"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

var (
	// ErrSeqTaken means that an event's seq is not the next free one of its log: another command has it, or there would
	// be a hole before it.
	ErrSeqTaken = errors.New("events do not continue the stored head of their conversation")
	// ErrPosition means that a position does not rise. Either another event has it, or the watermark goes back or to
	// another stream although no epoch begins.
	ErrPosition = errors.New("positions must rise: a batch continues from the watermark, or it begins an epoch; " +
		"if the database was restored or replaced, run runnel-history restored")
	// ErrLevel means that the protocol level would fall.
	ErrLevel = errors.New("the installation's protocol level is already higher, and it never falls")
	// ErrNotFound means that there is no such conversation, or that the viewer may not know of it.
	ErrNotFound = errors.New("no such conversation, or the viewer may not see it")
	// ErrNoDeadLetter means that the dead letter does not exist, or no longer exists.
	ErrNoDeadLetter = errors.New("no such dead letter")
	// ErrNoWorker means that no live worker has this name.
	ErrNoWorker = errors.New("no such worker is live")
	// ErrTooLarge means that the answer would be too large for one message: request fewer at a time.
	ErrTooLarge = errors.New("the answer would be too large: ask for fewer at a time")
	// ErrUnavailable means that the database is closed, unreachable or failing. The same call may succeed later. A write
	// may have been carried out.
	ErrUnavailable = errors.New("the database is not available")
	// ErrDefect means that the database refused a valid statement; a retry does not help.
	ErrDefect = errors.New("the database refused a statement")
)

// IsAnswer reports whether an error is the store's answer to a request, as opposed to a failure of the database.
func IsAnswer(err error) bool {
	var moved *WatermarkError
	var invalid *InvalidError
	var fork *ForkError
	var gap *GapError
	if errors.As(err, &moved) || errors.As(err, &invalid) || errors.As(err, &fork) || errors.As(err, &gap) {
		return true
	}
	for _, answer := range []error{ErrSeqTaken, ErrPosition, ErrLevel, ErrNotFound, ErrTooLarge, ErrNoDeadLetter, ErrNoWorker} {
		if errors.Is(err, answer) {
			return true
		}
	}
	return false
}

// WatermarkError means that the watermark that a batch expects is not the partition's current one: another worker has
// moved it.
type WatermarkError struct {
	Partition ids.Partition
	// Present is the current watermark of the partition.
	Present *historyv1.Watermark
}

func (e *WatermarkError) Error() string {
	return fmt.Sprintf("partition %d is at sequence %d of stream %q in epoch %d, not where the batch begins",
		e.Partition, e.Present.GetSequence(), e.Present.GetStream(), e.Present.GetEpoch())
}

// SeqTakenError is ErrSeqTaken with the conversation where it occurred.
type SeqTakenError struct {
	ConversationID ids.Conversation
	// First is the first seq of the batch in this conversation. Head is the stored head; 0 if the conversation is not
	// stored.
	First, Head ids.Seq
}

func (e *SeqTakenError) Error() string {
	if e.Head+1 == e.First {
		return fmt.Sprintf("conversation %s has the head %d and an event above it: check it with runnel admin conversations verify %s",
			e.ConversationID, e.Head, e.ConversationID)
	}
	return fmt.Sprintf("event %d does not continue conversation %s, whose head is %d: check it with runnel admin conversations verify %s",
		e.First, e.ConversationID, e.Head, e.ConversationID)
}

// Unwrap returns ErrSeqTaken.
func (e *SeqTakenError) Unwrap() error { return ErrSeqTaken }

// SeqTaken finds the conversation of a batch that does not continue its head. heads reads heads. If it fails, SeqTaken
// returns only ErrSeqTaken.
func SeqTaken(ctx context.Context, batch *Batch, heads func(ctx context.Context, conversations []string) ([]*historyv1.Head, error)) error {
	names := make([]string, len(batch.Changes))
	for i := range batch.Changes {
		names[i] = string(batch.Changes[i].ID)
	}
	stored, err := heads(ctx, names)
	if err != nil || len(batch.Changes) == 0 {
		return ErrSeqTaken
	}
	at := make(map[ids.Conversation]ids.Seq, len(stored))
	for _, head := range stored {
		at[ids.Conversation(head.GetConversationId())] = ids.Seq(head.GetHead())
	}
	// All heads match, so events above one of the heads are the reason. Name the first conversation, which is as likely
	// as any.
	found := &batch.Changes[0]
	for i := range batch.Changes {
		if change := &batch.Changes[i]; at[change.ID]+1 != change.First {
			found = change
			break
		}
	}
	return &SeqTakenError{ConversationID: found.ID, First: found.First, Head: at[found.ID]}
}

// InvalidError names the field of a request that breaks its rule.
type InvalidError struct {
	Field string
	// Rule describes a valid value; it never repeats the actual value.
	Rule string
}

func (e *InvalidError) Error() string { return e.Field + ": " + e.Rule }

// Invalid makes an *InvalidError.
func Invalid(field, format string, args ...any) error {
	return &InvalidError{Field: field, Rule: fmt.Sprintf(format, args...)}
}

// PartitionsError returns the error for opening a database that was created with another number of partitions.
func PartitionsError(stored string, asked int) error {
	return fmt.Errorf("the database was created with %s partitions, not %d: start every service with --nats.partitions=%s; "+
		"the number cannot change, because all commands of a conversation must go through the same partition",
		stored, asked, stored)
}
