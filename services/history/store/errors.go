package store

import (
	"errors"
	"fmt"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

var (
	// ErrSeqTaken says that an event's place in its log is not the next free one: another command has it, or there would be
	// a hole before it.
	ErrSeqTaken = errors.New("events do not continue the stored head of their conversation")
	// ErrPosition says that a position does not rise: another event has it, or the watermark goes back or to another stream
	// although no epoch begins.
	ErrPosition = errors.New("positions must rise: a batch goes on from the watermark, or it begins an epoch")
	// ErrLevel says that the protocol level would fall.
	ErrLevel = errors.New("the installation's protocol level is higher already, and it never falls")
	// ErrNotFound says that there is no such conversation, or that the viewer may not know.
	ErrNotFound = errors.New("no such conversation, or the viewer may not see it")
	// ErrNoDeadLetter says that there is no such dead letter, or not any more.
	ErrNoDeadLetter = errors.New("no such dead letter")
	// ErrNoWorker says that no live worker has this name.
	ErrNoWorker = errors.New("no such worker is live")
	// ErrTooLarge says that the answer would be too large for one message: ask for fewer at a time.
	ErrTooLarge = errors.New("the answer would be too large: ask for fewer at a time")
	// ErrUnavailable says that the database is closed, away or failing. The same call may succeed later; whether a write
	// has happened is unknown.
	ErrUnavailable = errors.New("the database is not available")
	// ErrDefect says that the database refused what it should have taken; trying again will not help.
	ErrDefect = errors.New("the database refused a statement")
)

// IsAnswer reports whether an error is an answer to a request, and not a failure of the database.
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

// WatermarkError says that a batch was not made on the partition's present watermark: another worker has moved it.
type WatermarkError struct {
	Partition uint32
	// Present is where the partition stands.
	Present *historyv1.Watermark
}

func (e *WatermarkError) Error() string {
	return fmt.Sprintf("partition %d stands at sequence %d of stream %q in epoch %d, not where the batch begins",
		e.Partition, e.Present.GetSequence(), e.Present.GetStream(), e.Present.GetEpoch())
}

// InvalidError names the field of a request that breaks its rule.
type InvalidError struct {
	Field string
	// Rule says what would have been right; it never repeats the value.
	Rule string
}

func (e *InvalidError) Error() string { return e.Field + ": " + e.Rule }

// Invalid makes an *InvalidError.
func Invalid(field, format string, args ...any) error {
	return &InvalidError{Field: field, Rule: fmt.Sprintf(format, args...)}
}

// PartitionsError is what opening a database with another number of partitions than it was made with gives.
func PartitionsError(stored string, asked int) error {
	return fmt.Errorf("the database was made with %s partitions, not %d: start every service with --nats.partitions=%s; "+
		"the number cannot change, because the order of a conversation rests on all its commands going through one partition",
		stored, asked, stored)
}
