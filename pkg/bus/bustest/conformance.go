// Package bustest is shared by tests of buses, and by tests of parts that must work even if a bus loses messages.
package bustest

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/bus"
)

// patience limits the wait for a message. A test that exceeds it fails.
const patience = 30 * time.Second

// Run is the conformance suite. open returns two ends of one bus; both ends are the same if the bus has only one.
func Run(t *testing.T, open func(t *testing.T) (publisher, subscriber bus.Bus)) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, bus.Bus, bus.Bus){
		"each subscription receives each message once": eachOnce,
		"other subjects are not received":              otherSubjects,
		"publishers keep their order":                  order,
		"the data is copied":                           copies,
		"a header travels":                             header,
		"without subscriptions":                        nobody,
		"after Unsubscribe":                            unsubscribed,
		"a full channel loses messages":                fullChannel,
		"too large":                                    tooLarge,
		"a function may use the bus":                   reentrant,
	} {
		t.Run(name, func(t *testing.T) {
			publisher, subscriber := open(t)
			test(t, publisher, subscriber)
		})
	}
}

// receive subscribes to a subject and passes the data of its messages to a channel.
func receive(t *testing.T, b bus.Bus, subject string) chan string {
	t.Helper()
	got := make(chan string, 10_000)
	sub, err := b.Subscribe(subject, func(msg *nats.Msg) { got <- string(msg.Data) })
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sub.Unsubscribe()) })
	return got
}

func settle(t *testing.T, b bus.Bus) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, b.FlushWithContext(ctx))
}

func publish(t *testing.T, b bus.Bus, subject, data string) {
	t.Helper()
	require.NoError(t, b.PublishMsg(&nats.Msg{Subject: subject, Data: []byte(data)}))
}

func next[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case got := <-from:
		return got
	case <-time.After(patience):
		require.FailNow(t, "no message arrived")
		var none T
		return none
	}
}

func eachOnce(t *testing.T, publisher, subscriber bus.Bus) {
	t.Helper()
	first, second := receive(t, subscriber, "a"), receive(t, subscriber, "a")
	channel := make(chan *nats.Msg, 10)
	sub, err := subscriber.ChanSubscribe("a", channel)
	require.NoError(t, err)
	defer func() { require.NoError(t, sub.Unsubscribe()) }()
	settle(t, subscriber)
	for _, data := range []string{"1", "2"} {
		publish(t, publisher, "a", data)
	}
	for _, data := range []string{"1", "2"} {
		require.Equal(t, data, next(t, first))
		require.Equal(t, data, next(t, second))
		msg := next(t, channel)
		require.Equal(t, data, string(msg.Data))
		require.Equal(t, "a", msg.Subject)
	}
	require.Empty(t, first)
	require.Empty(t, second)
	require.Empty(t, channel)
}

func otherSubjects(t *testing.T, publisher, subscriber bus.Bus) {
	t.Helper()
	got := receive(t, subscriber, "live.a")
	settle(t, subscriber)
	for _, subject := range []string{"live.b", "live", "live.a.b", "live.a"} {
		publish(t, publisher, subject, subject)
	}
	require.Equal(t, "live.a", next(t, got), "the others were published before")
	require.Empty(t, got)
}

func order(t *testing.T, publisher, subscriber bus.Bus) {
	t.Helper()
	const publishers, messages = 8, 500
	got := receive(t, subscriber, "a")
	settle(t, subscriber)
	var publishing sync.WaitGroup
	for p := range publishers {
		publishing.Go(func() {
			for i := range messages {
				_ = publisher.PublishMsg(&nats.Msg{Subject: "a", Data: fmt.Appendf(nil, "%d %d", p, i)})
			}
		})
	}
	var last [publishers]int
	for range publishers * messages {
		var p, i int
		_, err := fmt.Sscan(next(t, got), &p, &i)
		require.NoError(t, err)
		require.Equal(t, last[p], i, "of publisher %d", p)
		last[p]++
	}
	publishing.Wait()
}

func copies(t *testing.T, publisher, subscriber bus.Bus) {
	t.Helper()
	channel := make(chan *nats.Msg, 1)
	sub, err := subscriber.ChanSubscribe("a", channel)
	require.NoError(t, err)
	defer func() { require.NoError(t, sub.Unsubscribe()) }()
	settle(t, subscriber)
	scratch := []byte("before")
	require.NoError(t, publisher.PublishMsg(&nats.Msg{Subject: "a", Data: scratch}))
	copy(scratch, "behind")
	require.Equal(t, "before", string(next(t, channel).Data))
}

func header(t *testing.T, publisher, subscriber bus.Bus) {
	t.Helper()
	got := make(chan string, 1)
	sub, err := subscriber.Subscribe("a", func(msg *nats.Msg) { got <- msg.Header.Get("k") })
	require.NoError(t, err)
	defer func() { require.NoError(t, sub.Unsubscribe()) }()
	settle(t, subscriber)
	require.NoError(t, publisher.PublishMsg(&nats.Msg{Subject: "a", Header: nats.Header{"k": {"v"}}}))
	require.Equal(t, "v", next(t, got))
}

func nobody(t *testing.T, publisher, _ bus.Bus) {
	t.Helper()
	publish(t, publisher, "a", "x")
	settle(t, publisher)
}

func unsubscribed(t *testing.T, publisher, subscriber bus.Bus) {
	t.Helper()
	var calls atomic.Int64
	sub, err := subscriber.Subscribe("a", func(*nats.Msg) { calls.Add(1) })
	require.NoError(t, err)
	staying := receive(t, subscriber, "a")
	settle(t, subscriber)
	publish(t, publisher, "a", "1")
	require.Equal(t, "1", next(t, staying))
	require.Eventually(t, func() bool { return calls.Load() == 1 }, patience, time.Millisecond)
	require.NoError(t, sub.Unsubscribe())
	settle(t, subscriber)
	publish(t, publisher, "a", "2")
	require.Equal(t, "2", next(t, staying))
	require.EqualValues(t, 1, calls.Load())
}

func fullChannel(t *testing.T, publisher, subscriber bus.Bus) {
	t.Helper()
	channel := make(chan *nats.Msg, 1)
	sub, err := subscriber.ChanSubscribe("a", channel)
	require.NoError(t, err)
	defer func() { require.NoError(t, sub.Unsubscribe()) }()
	marker := receive(t, subscriber, "marker")
	settle(t, subscriber)
	for i := range 3 {
		publish(t, publisher, "a", strconv.Itoa(i))
	}
	publish(t, publisher, "marker", "x")
	next(t, marker)
	require.Equal(t, "0", string(next(t, channel).Data))
	require.Empty(t, channel, "the others were lost")
	publish(t, publisher, "a", "later")
	require.Equal(t, "later", string(next(t, channel).Data))
}

func tooLarge(t *testing.T, publisher, _ bus.Bus) {
	t.Helper()
	largest := publisher.MaxPayload()
	require.Positive(t, largest)
	require.NoError(t, publisher.PublishMsg(&nats.Msg{Subject: "a", Data: make([]byte, largest)}))
	require.ErrorIs(t, publisher.PublishMsg(&nats.Msg{Subject: "a", Data: make([]byte, largest+1)}), nats.ErrMaxPayload)
}

func reentrant(t *testing.T, publisher, subscriber bus.Bus) {
	t.Helper()
	got, inner := receive(t, subscriber, "b"), make(chan bus.Subscription, 1)
	sub, err := subscriber.Subscribe("a", func(*nats.Msg) {
		another, err := subscriber.Subscribe("c", func(*nats.Msg) {})
		if err == nil {
			inner <- another
		}
		_ = subscriber.PublishMsg(&nats.Msg{Subject: "b", Data: []byte("from within")})
	})
	require.NoError(t, err)
	defer func() { require.NoError(t, sub.Unsubscribe()) }()
	settle(t, subscriber)
	publish(t, publisher, "a", "x")
	require.Equal(t, "from within", next(t, got))
	require.NoError(t, next(t, inner).Unsubscribe())
}
