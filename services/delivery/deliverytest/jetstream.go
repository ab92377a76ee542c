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
