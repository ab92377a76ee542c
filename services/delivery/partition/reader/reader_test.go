package reader

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/delivery/deliverytest"
)

// consumers is a broker that supports only consumers, and records its calls.
type consumers struct {
	jetstream.JetStream

	createErr, consumeErr error
	stream                string
	config                jetstream.ConsumerConfig
	handle                jetstream.MessageHandler
	closed                chan struct{}
	deleted               []string
	deletedBy             time.Time // deadline of the deletion
}

func (c *consumers) CreateConsumer(_ context.Context, stream string, config jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	c.stream, c.config = stream, config
	return &consumer{of: c}, c.createErr
}

func (c *consumers) DeleteConsumer(ctx context.Context, stream, name string) error {
	c.deletedBy, _ = ctx.Deadline()
	c.deleted = append(c.deleted, stream+"/"+name)
	return ctx.Err()
}

type consumer struct {
	jetstream.Consumer

	of *consumers
}

func (c *consumer) CachedInfo() *jetstream.ConsumerInfo { return &jetstream.ConsumerInfo{Name: "c1"} }

func (c *consumer) Consume(handle jetstream.MessageHandler, _ ...jetstream.PullConsumeOpt) (jetstream.ConsumeContext, error) {
	if c.of.consumeErr != nil {
		return nil, c.of.consumeErr
	}
	c.of.handle, c.of.closed = handle, make(chan struct{})
	return &consuming{of: c.of}, nil
}

type consuming struct {
	jetstream.ConsumeContext

	of *consumers
}

func (c *consuming) Stop()                   { close(c.of.closed) }
func (c *consuming) Closed() <-chan struct{} { return c.of.closed }

// delivery is a message as a consumer receives it.
type delivery struct {
	jetstream.Msg

	sequence, pending uint64
	data              []byte
	err               error
}

func (d *delivery) Metadata() (*jetstream.MsgMetadata, error) {
	return &jetstream.MsgMetadata{Sequence: jetstream.SequencePair{Stream: d.sequence, Consumer: 999}, Timestamp: time.Unix(0, int64(d.sequence)*10), NumPending: d.pending}, d.err
}
func (d *delivery) Subject() string { return "in.0" }

func (d *delivery) Data() []byte         { return d.data }
func (d *delivery) Headers() nats.Header { return nil }

// From the strict sequence on, no message may be missing. Below it, gaps are skipped. Repeated messages are dropped.
func TestOrder(t *testing.T) {
	for name, c := range map[string]struct {
		from, strict uint64
		deliver      []uint64
		taken        []uint64
		gap          string
	}{
		"in order":                         {5, 7, []uint64{5, 6, 7, 8}, []uint64{5, 6, 7, 8}, ""},
		"twice":                            {5, 5, []uint64{5, 6, 5, 6, 7}, []uint64{5, 6, 7}, ""},
		"older than asked for":             {5, 5, []uint64{3, 4, 5}, []uint64{5}, ""},
		"a gap":                            {5, 5, []uint64{5, 7, 8}, []uint64{5}, "after 5 came 7"},
		"a gap at the begin":               {5, 5, []uint64{6}, nil, "after 4 came 6"},
		"nothing after a gap":              {5, 5, []uint64{5, 7, 6, 7}, []uint64{5}, "after 5 came 7"},
		"a gap below strict":               {5, 9, []uint64{5, 8, 9}, []uint64{5, 8, 9}, ""},
		"a gap up to strict":               {5, 9, []uint64{5, 9}, []uint64{5, 9}, ""},
		"a gap over strict":                {5, 9, []uint64{5, 10}, []uint64{5}, "after 5 came 10"},
		"a gap that begins at the strict":  {5, 6, []uint64{5, 7}, []uint64{5}, "after 5 came 7"},
		"a gap below strict at the begin":  {5, 9, []uint64{7, 8}, []uint64{7, 8}, ""},
		"a gap above after one that is ok": {5, 9, []uint64{7, 9, 11}, []uint64{7, 9}, "after 9 came 11"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &reader{queue: newQueue(100, 1000), next: ids.Sequence(c.from), strict: ids.Sequence(c.strict)}
			for _, sequence := range c.deliver {
				r.handle(t.Context(), &delivery{sequence: sequence})
			}
			entries, _, err := r.queue.TakeAll(nil)
			require.Equal(t, c.taken, sequences(entries))
			if c.gap == "" {
				require.NoError(t, err)
				return
			}
			if len(c.taken) > 0 {
				require.NoError(t, err, "after the last message")
				_, _, err = r.queue.TakeAll(nil)
			}
			require.ErrorIs(t, err, errGap)
			require.ErrorContains(t, err, c.gap)
		})
	}
}

// A message has its position, its time, its content, and the number of messages that follow.
func TestHandle(t *testing.T) {
	payload, err := deliverytest.Command("", "ann", 1, deliverytest.Group("g")).MarshalVT()
	require.NoError(t, err)
	r := &reader{queue: newQueue(100, 1000), next: 5, strict: 5}
	r.handle(t.Context(), &delivery{sequence: 5, pending: 3, data: payload})
	entries, pending, err := r.queue.TakeAll(nil)
	require.NoError(t, err)
	require.EqualValues(t, 3, pending)
	require.EqualValues(t, 5, entries[0].Sequence)
	require.EqualValues(t, 50, entries[0].TimeNs)
	require.Equal(t, "ann", entries[0].Command.GetSender())

	r.handle(t.Context(), &delivery{sequence: 6, err: errAway})
	_, _, err = r.queue.TakeAll(nil)
	require.ErrorIs(t, err, errAway)
}

// A reader starts at a sequence. Its consumer leaves no data at the broker. Stop returns only after the reader has
// stopped.
func TestStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		js, q := &consumers{}, newQueue(1, 1000)
		ctx, cancel := context.WithCancel(t.Context())
		stop, err := Start(ctx, js, "IN_3", 7, 9, q)
		require.NoError(t, err)
		require.Equal(t, "IN_3", js.stream)
		require.EqualValues(t, 7, js.config.OptStartSeq)
		require.Equal(t, jetstream.DeliverByStartSequencePolicy, js.config.DeliverPolicy)
		require.Equal(t, jetstream.AckNonePolicy, js.config.AckPolicy)
		require.True(t, js.config.MemoryStorage)
		require.Positive(t, js.config.InactiveThreshold)

		js.handle(&delivery{sequence: 8}) // message 7 was removed by its age, and is not needed
		waiting := make(chan struct{})
		go func() { defer close(waiting); js.handle(&delivery{sequence: 9}) }()
		synctest.Wait()
		entries, _, err := q.TakeAll(nil)
		require.NoError(t, err)
		require.Equal(t, []uint64{8}, sequences(entries))
		<-waiting

		// A handler that waits for room ends with the reader. The consumer is deleted although the context has ended.
		blocked := make(chan struct{})
		go func() { defer close(blocked); js.handle(&delivery{sequence: 10}) }()
		synctest.Wait()
		cancel()
		stop()
		<-blocked
		<-js.closed
		require.Equal(t, []string{"IN_3/c1"}, js.deleted)
		require.Equal(t, time.Now().Add(consumerGrace), js.deletedBy)
	})
}

// Stop ends the handlers without further calls.
func TestStopEndsTheHandlers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		js, q := &consumers{}, newQueue(1, 1000)
		stop, err := Start(t.Context(), js, "IN_3", 1, 1, q)
		require.NoError(t, err)
		js.handle(&delivery{sequence: 1})
		blocked := make(chan struct{})
		go func() { defer close(blocked); js.handle(&delivery{sequence: 2}) }()
		synctest.Wait()
		stop()
		<-blocked
	})
}

// An error in making or using a consumer names the stream and the sequence.
func TestStartFails(t *testing.T) {
	for name, js := range map[string]*consumers{"making it": {createErr: errAway}, "using it": {consumeErr: errAway}} {
		stop, err := Start(t.Context(), js, "IN_3", 7, 7, newQueue(1, 1000))
		require.ErrorIs(t, err, errAway, name)
		require.ErrorContains(t, err, "IN_3", name)
		require.ErrorContains(t, err, "7", name)
		require.Nil(t, stop, name)
	}
}
