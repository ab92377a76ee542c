package deliverytest

import (
	"context"

	"github.com/nats-io/nats.go/jetstream"
)

// JetStream is a fake of JetStream with a fixed set of streams, by name.
type JetStream struct {
	jetstream.JetStream // methods that are not implemented panic

	Streams map[string]*Stream
	// Err, if set, is returned by every call.
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
		for _, only := range j.Streams { // the fake streams do not know their names
			stream = only
		}
	}
	stream.mu.Lock()
	stream.Subjects = cfg.Subjects
	stream.mu.Unlock()
	return stream, ctx.Err()
}
