package deliverytest

import (
	"context"

	"github.com/nats-io/nats.go/jetstream"
)

// JetStream has the streams that it was given, by name.
type JetStream struct {
	jetstream.JetStream // what is not faked panics

	Streams map[string]*Stream
	// Err, if set, is the answer to every call.
	Err error
}

// Stream looks up a stream.
func (j *JetStream) Stream(_ context.Context, name string) (jetstream.Stream, error) {
	if j.Err != nil {
		return nil, j.Err
	}
	if stream := j.Streams[name]; stream != nil {
		return stream, nil
	}
	return nil, jetstream.ErrStreamNotFound
}

// UpdateStream sets the subjects of a stream.
func (j *JetStream) UpdateStream(ctx context.Context, cfg jetstream.StreamConfig) (jetstream.Stream, error) {
	stream := j.Streams[cfg.Name]
	if stream == nil {
		for _, only := range j.Streams { // the fakes do not know their names
			stream = only
		}
	}
	stream.mu.Lock()
	stream.Subjects = cfg.Subjects
	stream.mu.Unlock()
	return stream, ctx.Err()
}
