package store

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/runnelhq/runnel/pkg/ids"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// DeadLetters stores the commands that became dead letters.
type DeadLetters interface {
	// DeadLetters returns a page of dead letters, without payloads.
	DeadLetters(ctx context.Context, request *historyv1.ListDeadLettersRequest) (*historyv1.ListDeadLettersResponse, error)
	// DeadLetter returns one dead letter with its payload. ErrNoDeadLetter if it does not exist.
	DeadLetter(ctx context.Context, key DeadLetterKey) (*historyv1.StoredDeadLetter, error)
	// DropDeadLetter deletes a dead letter permanently. ErrNoDeadLetter if it does not exist.
	DropDeadLetter(ctx context.Context, key DeadLetterKey) error
}

// DeadLetterKey is the key of a dead letter.
type DeadLetterKey struct {
	Partition ids.Partition
	Stream    string
	Sequence  ids.Sequence
}

const (
	partitionDigits   = 4
	sequenceDigits    = 19 // number of digits of the largest number that databases accept
	maxPartitionInKey = 9999
)

// ID returns the key as one word. Ids sort bytewise in the same order as keys in a table: partition and sequence are
// padded, and the digits of a stream end in a character that sorts before every digit.
func (k DeadLetterKey) ID() string {
	return fmt.Sprintf("%0*d-%s-%0*d", partitionDigits, k.Partition, k.Stream, sequenceDigits, k.Sequence)
}

// ParseDeadLetterID returns the key of an id; false if the id is invalid.
func ParseDeadLetterID(id string) (DeadLetterKey, bool) {
	partition, rest, _ := strings.Cut(id, "-")
	stream, sequence, _ := strings.Cut(rest, "-")
	p, errPartition := strconv.ParseUint(partition, 10, 32)
	n, errSequence := strconv.ParseUint(sequence, 10, 63)
	key := DeadLetterKey{Partition: ids.Partition(p), Stream: stream, Sequence: ids.Sequence(n)}
	digits := stream != "" && strings.Trim(stream, "0123456789") == ""
	// Only the canonical form is accepted, so that a dead letter has only one id.
	return key, errPartition == nil && errSequence == nil && digits && p <= maxPartitionInKey && key.ID() == id
}

// DeadLetterRange returns the keys that bound a page: its keys are above after, and in no partition above last.
func DeadLetterRange(request *historyv1.ListDeadLettersRequest, partitions int) (after DeadLetterKey, last uint32) {
	last = uint32(partitions)
	if request.Partition != nil {
		after.Partition, last = ids.Partition(request.GetPartition()), request.GetPartition()
	}
	if key, ok := ParseDeadLetterID(request.GetAfter()); ok && key.Partition >= after.Partition {
		after = key
	}
	return after, last
}

// Fill sets the letter's fields that are parts of the key.
func (k DeadLetterKey) Fill(letter *historyv1.StoredDeadLetter) {
	letter.DeadLetterId, letter.Partition, letter.Stream = k.ID(), uint32(k.Partition), k.Stream
	letter.Letter.Sequence = uint64(k.Sequence)
}
