package deliverytest

import (
	"context"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Stream is a stream in memory. First and Last set its first and last sequence; without them, the sequences of its
// messages do.
type Stream struct {
	jetstream.Stream // methods that are not implemented panic

	// Subjects are the subjects of the stream.
	Subjects    []string
	Created     time.Time
	First, Last uint64
	// Bytes is the size of the stream's content. MaxBytes is its limit.
	Bytes    uint64
	MaxBytes int64

	mu       sync.Mutex
	messages map[uint64]*jetstream.RawStreamMsg
	fail     map[uint64]error
	read     []uint64
	purged   []uint64
	purgeErr error
}

// NewStream makes an empty stream. created, the time of creation, identifies the stream.
func NewStream(created time.Time) *Stream {
	return &Stream{Created: created, messages: map[uint64]*jetstream.RawStreamMsg{}, fail: map[uint64]error{}}
}

// Put puts a message at a sequence.
func (s *Stream) Put(sequence uint64, timeNs int64, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.messages[sequence] = &jetstream.RawStreamMsg{Sequence: sequence, Time: time.Unix(0, timeNs), Data: data}
}

// Fail makes reads of a sequence fail.
func (s *Stream) Fail(sequence uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail[sequence] = err
}

// Reads returns the number of messages that were read.
func (s *Stream) Reads() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.read)
}

// CachedInfo returns the state of the stream.
func (s *Stream) CachedInfo() *jetstream.StreamInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	info := &jetstream.StreamInfo{Created: s.Created}
	info.Config.Subjects = s.Subjects
	info.Config.MaxBytes, info.State.Bytes = s.MaxBytes, s.Bytes
	info.State.Msgs = uint64(len(s.messages))
	for sequence := range s.messages {
		if info.State.FirstSeq == 0 || sequence < info.State.FirstSeq {
			info.State.FirstSeq = sequence
		}
		info.State.LastSeq = max(info.State.LastSeq, sequence)
	}
	if first := s.messages[info.State.FirstSeq]; first != nil {
		info.State.FirstTime = first.Time
	}
	if s.First > 0 {
		info.State.FirstSeq = s.First
	}
	if s.Last > 0 {
		info.State.LastSeq = s.Last
	}
	return info
}

// GetMsg reads a message. With an option, which can only select a subject, it reads the first matching message from
// sequence on.
func (s *Stream) GetMsg(_ context.Context, sequence uint64, opts ...jetstream.GetMsgOpt) (*jetstream.RawStreamMsg, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read = append(s.read, sequence)
	for {
		if err := s.fail[sequence]; err != nil {
			return nil, err
		}
		if message := s.messages[sequence]; message != nil {
			return message, nil
		}
		if sequence++; len(opts) == 0 || sequence > 1_000_000 {
			return nil, jetstream.ErrMsgNotFound
		}
	}
}

// Info returns the state of the stream.
func (s *Stream) Info(context.Context, ...jetstream.StreamInfoOpt) (*jetstream.StreamInfo, error) {
	return s.CachedInfo(), nil
}

// Purge removes the messages below a sequence, or returns the error of FailPurges.
func (s *Stream) Purge(_ context.Context, opts ...jetstream.StreamPurgeOpt) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.purgeErr != nil {
		return s.purgeErr
	}
	var request jetstream.StreamPurgeRequest
	for _, opt := range opts {
		if err := opt(&request); err != nil {
			return err
		}
	}
	s.purged = append(s.purged, request.Sequence)
	for sequence := range s.messages {
		if sequence < request.Sequence {
			delete(s.messages, sequence)
		}
	}
	return nil
}

// FailPurges makes purges fail with err; nil ends the failures.
func (s *Stream) FailPurges(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.purgeErr = err
}

// Purges returns the sequences below which the stream was purged.
func (s *Stream) Purges() []uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]uint64(nil), s.purged...)
}
