package store

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// DeadLetters knows the commands that were put aside.
type DeadLetters interface {
	// DeadLetters gives a page of what was put aside, without payloads.
	DeadLetters(ctx context.Context, request *historyv1.ListDeadLettersRequest) (*historyv1.ListDeadLettersResponse, error)
	// DeadLetter gives one with its payload. ErrNoDeadLetter when it is not there.
	DeadLetter(ctx context.Context, key DeadLetterKey) (*historyv1.StoredDeadLetter, error)
	// DropDeadLetter forgets one for good. ErrNoDeadLetter when it is not there.
	DropDeadLetter(ctx context.Context, key DeadLetterKey) error
}

// DeadLetterKey is what a dead letter is stored under.
type DeadLetterKey struct {
	Partition uint32
	Stream    string
	Sequence  uint64
}

const (
	partitionDigits   = 4
	sequenceDigits    = 19 // of the largest number that databases take
	maxPartitionInKey = 9999
)

// ID is the key as one word. Ids sort bytewise as keys do in a table: partition and sequence are padded, and the digits of
// a stream end in a character that comes before every digit.
func (k DeadLetterKey) ID() string {
	return fmt.Sprintf("%0*d-%s-%0*d", partitionDigits, k.Partition, k.Stream, sequenceDigits, k.Sequence)
}

// ParseDeadLetterID gives the key that an id was made of; false when it was made of none.
func ParseDeadLetterID(id string) (DeadLetterKey, bool) {
	partition, rest, _ := strings.Cut(id, "-")
	stream, sequence, _ := strings.Cut(rest, "-")
	p, errPartition := strconv.ParseUint(partition, 10, 32)
	n, errSequence := strconv.ParseUint(sequence, 10, 63)
	key := DeadLetterKey{Partition: uint32(p), Stream: stream, Sequence: n}
	digits := stream != "" && strings.Trim(stream, "0123456789") == ""
	// Written as an id writes it, or the same dead letter would go by several names.
	return key, errPartition == nil && errSequence == nil && digits && p <= maxPartitionInKey && key.ID() == id
}

// DeadLetterRange gives the keys between which a page lies: all of it is above after and in no partition above last.
func DeadLetterRange(request *historyv1.ListDeadLettersRequest, partitions int) (after DeadLetterKey, last uint32) {
	last = uint32(partitions)
	if request.Partition != nil {
		after.Partition, last = request.GetPartition(), request.GetPartition()
	}
	if key, ok := ParseDeadLetterID(request.GetAfter()); ok && key.Partition >= after.Partition {
		after = key
	}
	return after, last
}

// Fill sets what the key says.
func (k DeadLetterKey) Fill(letter *historyv1.StoredDeadLetter) {
	letter.DeadLetterId, letter.Partition, letter.Stream = k.ID(), k.Partition, k.Stream
	letter.Letter.Sequence = k.Sequence
}
