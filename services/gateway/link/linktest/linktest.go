// Package linktest is the conformance suite of links: it tests the guarantees that a session relies on, for any
// transport.
package linktest

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/errcode"

	"github.com/runnelhq/runnel/services/gateway/flight"
	"github.com/runnelhq/runnel/services/gateway/link"
	"github.com/runnelhq/runnel/services/gateway/link/outbox"
	"github.com/runnelhq/runnel/services/gateway/metrics"
)

// Client is the far end of a link.
type Client interface {
	// Send sends one message.
	Send(message []byte) error
	// Next returns the payload of the next message, or the close code if the link was closed.
	Next() (message []byte, code errcode.CloseCode, err error)
	// Close closes the link as a client does.
	Close(code errcode.CloseCode)
	// Lose breaks the connection without closing it.
	Lose()
}

// Open makes a link that is served to a receiver, and its client. The cleanup of the test ends both.
type Open func(t *testing.T, shared *outbox.Shared, receiver link.Receiver) (link.Link, Client)

// patience is the time limit for events that normally take milliseconds. A test that exceeds it fails.
const patience = 30 * time.Second

// receiver records what the link passes to it.
type receiver struct {
	mu       sync.Mutex
	messages []string
	control  int
	opened   bool
	ended    chan errcode.CloseCode
	arrived  chan struct{}
}

func newReceiver() *receiver {
	return &receiver{ended: make(chan errcode.CloseCode, 2), arrived: make(chan struct{}, 1000)}
}

func (r *receiver) Receive(message []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.messages = append(r.messages, string(message))
	r.opened = true
	r.arrived <- struct{}{}
}

func (r *receiver) AllowControl() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.control++
	return true
}

func (r *receiver) Opened() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.opened
}

func (r *receiver) Ended(code errcode.CloseCode) { r.ended <- code }

func (r *receiver) wait(t *testing.T, n int) []string {
	t.Helper()
	for range n {
		select {
		case <-r.arrived:
		case <-time.After(patience):
			require.FailNow(t, "a message does not arrive")
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string{}, r.messages...)
}

func (r *receiver) end(t *testing.T) errcode.CloseCode {
	t.Helper()
	select {
	case code := <-r.ended:
		return code
	case <-time.After(patience):
		require.FailNow(t, "the link does not end")
		return 0
	}
}

// bed is a link between a receiver and a client.
type bed struct {
	*testing.T
	link.Link

	receiver *receiver
	client   Client
	shared   *outbox.Shared
}

const (
	maxBytes = 1 << 20
	// maxMessages messages of 32 KiB are more than a transport and a queue hold together.
	maxMessages = 1000
)

func newBed(t *testing.T, open Open) *bed {
	t.Helper()
	return newBedWith(t, open, func(*outbox.Shared) {})
}

func newBedWith(t *testing.T, open Open, change func(*outbox.Shared)) *bed {
	t.Helper()
	b := &bed{T: t, receiver: newReceiver(), shared: Shared()}
	change(b.shared)
	b.Link, b.client = open(t, b.shared, b.receiver)
	return b
}

// Shared returns the outbox.Shared of a test.
func Shared() *outbox.Shared {
	return &outbox.Shared{
		MaxBytes: maxBytes, WriteTimeout: patience, Buffers: &outbox.Buffers{},
		Metrics: metrics.New(prometheus.NewRegistry()), Recorder: flight.NewRecorder(0),
	}
}

// message makes one message with a payload, as sessions do.
func (b *bed) message(payload string) []byte {
	return b.Describe().Encoding.Message(func(dst []byte) []byte { return append(dst, payload...) })
}

func (b *bed) send(payload string) {
	b.Queue(b.message(payload))
	b.Flush()
}

func (b *bed) next() string {
	b.Helper()
	message, code, err := b.client.Next()
	require.NoError(b, err)
	require.Zero(b, code)
	return string(message)
}

// drain reads until the link is closed.
func (b *bed) drain() (messages []string, code errcode.CloseCode, err error) {
	for {
		message, code, err := b.client.Next()
		if err != nil || code != 0 {
			return messages, code, err
		}
		messages = append(messages, string(message))
	}
}

// Run runs the suite.
func Run(t *testing.T, open Open) {
	t.Helper()
	for name, test := range map[string]func(b *bed){
		"messages to the client come whole and in order": messagesToTheClient,
		"messages of the client come whole and in order": messagesOfTheClient,
		"the close code comes after the queued messages": closing,
		"a client closes":  clientCloses,
		"a client is lost": clientIsLost,
		"a slow client is closed with the code for slow clients": slow,
		"WaitForRoom waits until there is room":                  room,
		"nothing is queued after the end":                        afterTheEnd,
		"any goroutine may write and close":                      concurrent,
		"a client that keeps reading receives a large backlog":   backlog,
		"no message is passed on once the link is closing":       closed,
		"a client that never answers a close is ended":           unanswered,
		"the description contains the client's address":          described,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // some cases wait for a deadline
			test(newBed(t, open))
		})
	}
	t.Run("a client that stops reading is ended", func(t *testing.T) {
		b := newBedWith(t, open, func(shared *outbox.Shared) { shared.WriteTimeout = 50 * time.Millisecond })
		message := b.message(strings.Repeat("x", 64<<10))
		for n := 0; !b.Closing(); n++ {
			require.Less(b, n, maxMessages, "the transport accepts any amount")
			b.Queue(message)
			b.Flush()
			b.shared.Writers.Wait() // all is written, or the writer has given up
		}
		require.Equal(b, errcode.CloseSlow, b.receiver.end(b.T))
		sent := make(chan error, 1)
		go func() {
			for err := error(nil); err == nil; {
				err = b.client.Send([]byte("late"))
			}
			sent <- errGone
		}()
		select {
		case <-sent:
		case <-time.After(patience):
			require.FailNow(b, "a client can send to a link that has ended")
		}
	})
}

var errGone = errors.New("the link has ended")

func closed(b *bed) {
	b.Close(errcode.CloseGoingAway, "")
	_ = b.client.Send([]byte("late"))
	b.client.Lose()
	b.receiver.end(b.T)
	require.Empty(b, b.receiver.messages)
}

func unanswered(b *bed) {
	b.Close(errcode.CloseGoingAway, "")
	require.Equal(b, errcode.CloseGoingAway, b.receiver.end(b.T), "after outbox.CloseGrace")
	b.client.Lose()
}

func described(b *bed) {
	require.NotEmpty(b, b.Describe().Remote)
	require.NotEmpty(b, b.Describe().Encoding.String())
	require.Zero(b, b.Describe().QueuedBytes)
}

func messagesToTheClient(b *bed) {
	sizes := []int{1, 125, 126, 1000, 65535, 65536, 200_000}
	go func() {
		for i, size := range sizes {
			if i%2 == 0 {
				b.send(strings.Repeat(string(rune('a'+i)), size))
				continue
			}
			b.QueueEvents(b.message(strings.Repeat(string(rune('a'+i)), size)), nil)
			b.Flush()
		}
		b.Queue(b.message("two"))
		b.Queue(b.message("at once"))
		b.Flush()
	}()
	for i, size := range sizes {
		require.Equal(b, strings.Repeat(string(rune('a'+i)), size), b.next())
	}
	require.Equal(b, "two", b.next())
	require.Equal(b, "at once", b.next())
}

func messagesOfTheClient(b *bed) {
	var sent []string
	for i := range 20 {
		message := strings.Repeat(strconv.Itoa(i), 1+i*i*10)
		sent = append(sent, message)
		require.NoError(b, b.client.Send([]byte(message)))
	}
	require.Equal(b, sent, b.receiver.wait(b.T, len(sent)))
}

func closing(b *bed) {
	b.Queue(b.message("last"))
	require.True(b, b.Close(errcode.CloseGoingAway, "bye"))
	require.False(b, b.Close(errcode.CloseInternal, "again"))
	require.True(b, b.Closing())
	messages, code, err := b.drain()
	require.NoError(b, err)
	require.Equal(b, []string{"last"}, messages)
	require.Equal(b, errcode.CloseGoingAway, code)
	b.client.Close(code)
	require.Equal(b, errcode.CloseGoingAway, b.receiver.end(b.T))
	<-b.Done()
}

func clientCloses(b *bed) {
	require.NoError(b, b.client.Send([]byte("hello")))
	b.receiver.wait(b.T, 1)
	b.client.Close(1001)
	require.Equal(b, errcode.CloseCode(1001), b.receiver.end(b.T))
	require.True(b, b.Closing())
	<-b.Done()
}

func clientIsLost(b *bed) {
	b.client.Lose()
	require.Zero(b, b.receiver.end(b.T))
	<-b.Done()
	require.Empty(b, b.receiver.ended, "Ended is called once")
}

func slow(b *bed) {
	message := b.message(strings.Repeat("x", 64<<10))
	for n := 0; !b.Closing(); n++ { // the transport and the queue accept some messages, then the limit is exceeded
		require.Less(b, n, maxMessages, "the queue has no limit")
		b.Queue(message)
		b.Flush()
	}
	require.False(b, b.WaitForRoom())
	_, code, err := b.drain()
	if err == nil { // the transport may have been too full for a close code
		require.Equal(b, errcode.CloseSlow, code)
	}
	b.client.Lose()
	require.Equal(b, errcode.CloseSlow, b.receiver.end(b.T))
}

func room(b *bed) {
	message := b.message(strings.Repeat("x", 32<<10))
	size := len(message)
	for n := 0; b.Describe().QueuedBytes+size <= maxBytes; n++ {
		require.Less(b, n, maxMessages, "QueuedBytes is wrong")
		b.Queue(message)
		b.Flush()
	}
	waited := make(chan bool, 1)
	go func() { waited <- b.WaitForRoom() }()
	go func() { _, _, _ = b.drain() }()
	select {
	case ok := <-waited:
		require.True(b, ok)
		require.LessOrEqual(b, b.Describe().QueuedBytes, maxBytes/2)
	case <-time.After(patience):
		require.FailNow(b, "there is no room")
	}
	b.Close(errcode.CloseGoingAway, "")
	b.client.Lose()
	b.receiver.end(b.T)
}

func afterTheEnd(b *bed) {
	b.client.Lose()
	b.receiver.end(b.T)
	require.False(b, b.Queue(b.message("late")))
	mark, first := b.QueueEvents(b.message("late"), nil)
	require.Zero(b, mark)
	require.False(b, first)
	b.Flush()
	require.False(b, b.WaitForRoom())
	require.False(b, b.Close(errcode.CloseGoingAway, ""))
	require.Zero(b, b.Describe().QueuedBytes)
}

func concurrent(b *bed) {
	const each = 50
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := range each {
				b.send(fmt.Sprintf("%d %d", w, i))
			}
		})
	}
	go func() {
		writers.Wait()
		b.Close(errcode.CloseGoingAway, "")
	}()
	messages, code, err := b.drain()
	require.NoError(b, err)
	require.Equal(b, errcode.CloseGoingAway, code)
	require.Len(b, messages, 4*each)
	next := [4]int{}
	for _, message := range messages {
		var w, i int
		_, err := fmt.Sscan(message, &w, &i)
		require.NoError(b, err)
		require.Equal(b, next[w], i, "each writer's messages keep their order")
		next[w]++
	}
	b.client.Close(code)
	b.receiver.end(b.T)
}

func backlog(b *bed) {
	payload := bytes.Repeat([]byte("y"), 30<<10)
	message := b.message(string(payload))
	const n = 30 // messages; too few to exceed the queue's limit
	for range n {
		b.Queue(message)
	}
	b.Flush()
	for range n {
		require.Len(b, b.next(), len(payload))
	}
}
