package source

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strconv"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/runnelhq/runnel/pkg/ids"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// IdentityOf returns the identity of a stream. If a stream is lost and created again, the new stream has a new identity.
func IdentityOf(info *jetstream.StreamInfo) string {
	return strconv.FormatInt(info.Created.UnixNano(), 10)
}

// LostTail reports whether a stream has lost the message at the watermark. The stream holds the sequences first to last.
func LostTail(ctx context.Context, stream jetstream.Stream, mark *historyv1.Watermark, first, last ids.Sequence) (bool, error) {
	switch {
	case ids.Sequence(mark.GetSequence()) > last:
		return true, nil
	case ids.Sequence(mark.GetSequence()) < first:
		return false, nil // the message expired, or no message was read yet: there is nothing to compare
	}
	message, err := stream.GetMsg(ctx, mark.GetSequence())
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("get message %d: %w", mark.GetSequence(), err)
	}
	return message.Time.UnixNano() != mark.GetTimeNs(), nil
}

// LastNotAfter returns the sequence of the last message from first to last that is not newer than a time; first-1 if all
// are newer. The times of a stream rise, so it uses binary search.
func LastNotAfter(ctx context.Context, stream jetstream.Stream, timeNs int64, first, last ids.Sequence) (ids.Sequence, error) {
	var failed error
	n := sort.Search(int(last+1-first), func(i int) bool {
		if failed != nil {
			return true
		}
		message, err := stream.GetMsg(ctx, uint64(first+ids.Sequence(i)))
		switch {
		case errors.Is(err, jetstream.ErrMsgNotFound):
			return false // a hole before the result does not matter here; a hole after it is found when the stream is read
		case err != nil:
			failed = fmt.Errorf("get message %d: %w", first+ids.Sequence(i), err)
			return true
		}
		return message.Time.UnixNano() > timeNs
	})
	return first + ids.Sequence(n) - 1, failed
}
