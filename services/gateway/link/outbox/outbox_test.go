package outbox_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"

	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/gateway/flight"
	"github.com/runnelhq/runnel/services/gateway/link/outbox"
	"github.com/runnelhq/runnel/services/gateway/metrics"
)

// pipe is a transport whose client reads as much as the test says.
type pipe struct {
	mu            sync.Mutex
	room          int // bytes that it accepts without waiting
	written       bytes.Buffer
	tries, vector int
	failure       error
	writeDeadline time.Time
	readDeadline  time.Time
	closed        bool
	read          chan int // more room, for a write that is waiting
}

func (p *pipe) TryWrite(data []byte) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tries++
	if p.failure != nil {
		return data, p.failure
	}
	n := min(p.room, len(data))
	p.written.Write(data[:n])
	p.room -= n
	return data[n:], nil
}

func (p *pipe) WriteBuffers(buffers net.Buffers) error {
	p.mu.Lock()
	p.vector++
	p.mu.Unlock()
	for _, data := range buffers {
		for len(data) > 0 {
			p.mu.Lock()
			n := min(p.room, len(data))
			p.written.Write(data[:n])
			p.room -= n
			deadline := p.writeDeadline
			p.mu.Unlock()
			if data = data[n:]; len(data) == 0 {
				break
			}
			wait := time.Until(deadline)
			if wait <= 0 {
				return os.ErrDeadlineExceeded
			}
			select {
			case n, open := <-p.read:
				if !open {
					return errGone
				}
				p.allow(n)
			case <-time.After(min(wait, 100*time.Millisecond)): // a deadline may be shortened meanwhile
			}
		}
	}
	return nil
}

var errGone = errors.New("gone")

func (p *pipe) Goodbye(code errcode.CloseCode, _ string) []byte {
	return fmt.Appendf(nil, "<%d>", code)
}

func (p *pipe) SetReadDeadline(t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.readDeadline = t
	return nil
}

func (p *pipe) SetWriteDeadline(t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.writeDeadline = t
	return nil
}

func (p *pipe) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.closed = true
		close(p.read)
	}
	return nil
}

func (p *pipe) allow(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.room += n
}

func (p *pipe) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.written.String()
}

// bed is an outbox with a limit of 100 bytes in front of a pipe.
type bed struct {
	*testing.T
	*outbox.Outbox

	pipe   *pipe
	shared *outbox.Shared
}

// inBubble runs a test with an outbox whose pipe accepts this many bytes at once.
func inBubble(t *testing.T, room int, test func(b *bed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bed{
			T: t, Outbox: &outbox.Outbox{}, pipe: &pipe{room: room, read: make(chan int)},
			shared: &outbox.Shared{
				MaxBytes: 100, WriteTimeout: 15 * time.Second, Buffers: &outbox.Buffers{},
				Metrics: metrics.New(prometheus.NewRegistry()), Recorder: flight.NewRecorder(64),
			},
		}
		b.Init(b.shared, b.pipe, 1)
		defer b.shared.Writers.Wait()
		defer b.pipe.Close()
		test(b)
	})
}

func (b *bed) send(message string) {
	b.Queue([]byte(message))
	b.Flush()
}

// steps returns the recorded steps of an event.
func (b *bed) steps(seq uint64) (kinds []gatewayv1.StepKind) {
	trail := &gatewayv1.Trail{}
	b.shared.Recorder.ExplainConnection(trail, 1, b.shared.Recorder.KeyOf("g"), ids.Seq(seq))
	for _, step := range trail.GetSteps() {
		kinds = append(kinds, step.GetKind())
	}
	return kinds
}

// event queues an event and records that, as rooms do.
func (b *bed) event(seq uint64, size int) (mark uint32) {
	mark, _ = b.QueueEvents(bytes.Repeat([]byte{byte('a' + seq)}, size), nil)
	if mark != 0 {
		b.shared.Recorder.Subscription(gatewayv1.StepKind_STEP_KIND_QUEUED, time.Now(), b.shared.Recorder.KeyOf("g"), 1, mark, ids.Seq(seq), ids.Seq(seq))
	}
	return mark
}

var (
	queued          = []gatewayv1.StepKind{gatewayv1.StepKind_STEP_KIND_QUEUED}
	queuedAndWriten = []gatewayv1.StepKind{gatewayv1.StepKind_STEP_KIND_QUEUED, gatewayv1.StepKind_STEP_KIND_WRITTEN}
)

// While the transport accepts everything, the caller writes, and messages that wait together are written at once.
func TestMessagesAreWrittenByTheCaller(t *testing.T) {
	inBubble(t, 1000, func(b *bed) {
		require.True(b, b.Queue([]byte("one ")), "the first: its caller flushes")
		require.False(b, b.Queue([]byte("two ")), "another caller flushes already")
		require.Equal(b, 8, b.QueuedBytes())
		b.Flush()
		require.Equal(b, "one two ", b.pipe.text())
		require.Equal(b, 1, b.pipe.tries)
		require.True(b, b.Queue([]byte("three")))
		b.Flush()
		b.Flush() // the queue is empty
		require.Equal(b, 2, b.pipe.tries)
		require.Zero(b, b.pipe.vector, "no writer was needed")
		require.Zero(b, b.QueuedBytes())
		require.InDelta(b, 2, testutil.ToFloat64(b.shared.Metrics.Writes), 0)
		require.InDelta(b, 13, testutil.ToFloat64(b.shared.Metrics.BytesOut), 0)
	})
}

// A backlog is written by a writer, in order; afterwards the caller writes again.
func TestABacklogIsWrittenInOrder(t *testing.T) {
	for room := range 12 {
		inBubble(t, room, func(b *bed) {
			b.send("one ")
			b.send("two ")
			b.Queue([]byte("three "))
			b.Queue([]byte("four "))
			b.Flush()
			synctest.Wait()
			b.pipe.allow(1000)
			if len(b.pipe.text()) < 19 {
				b.pipe.read <- 0
			}
			synctest.Wait()
			require.Equal(b, "one two three four ", b.pipe.text(), "room for %d", room)
			require.True(b, b.Queue([]byte("five")), "idle again")
			b.Flush()
			require.Equal(b, "one two three four five", b.pipe.text())
			require.True(b, b.pipe.writeDeadline.IsZero())
		})
	}
}

// Messages that were joined in a buffer and partly written are not overwritten by the buffer's next use.
func TestTheRestOfJoinedMessagesIsKept(t *testing.T) {
	inBubble(t, 3, func(b *bed) {
		b.Queue([]byte("abc"))
		b.Queue([]byte("def"))
		b.Flush()
		for range 8 {
			buffer := b.shared.Buffers.Take()
			*buffer = append((*buffer)[:0], "XXXXXXXXXX"...)
		}
		b.pipe.read <- 100
		synctest.Wait()
		require.Equal(b, "abcdef", b.pipe.text())
	})
}

// A client with too large a backlog is closed. The write under way is finished, the rest is dropped, and the close code
// comes last.
func TestASlowClientIsClosed(t *testing.T) {
	inBubble(t, 5, func(b *bed) {
		b.send("0123456789") // five bytes are written, the writer waits with the rest
		synctest.Wait()
		require.Equal(b, uint32(2), b.event(1, 60))
		require.False(b, b.Closing())
		require.Equal(b, uint32(3), b.event(2, 60), "QueueEvents does not report that the message exceeded the limit")
		require.True(b, b.Closing())
		require.InDelta(b, 1, testutil.ToFloat64(b.shared.Metrics.Limits[metrics.LimitSendQueue]), 0)
		require.Zero(b, b.event(3, 1), "nothing more is queued")
		require.False(b, b.Queue([]byte("x")))
		require.False(b, b.WaitForRoom())
		require.False(b, b.Close(errcode.CloseGoingAway, ""))
		b.pipe.read <- 1000
		synctest.Wait()
		require.Equal(b, "0123456789<4001>", b.pipe.text())
		require.Equal(b, queued, b.steps(1), "it was never written")
		require.Equal(b, errcode.CloseSlow, b.End())
	})
}

// A queue of which nothing was written yet may exceed the limit for a moment: a large answer to a client that reads is no
// reason to close.
func TestALargeBurstToAClientThatReadsIsFine(t *testing.T) {
	inBubble(t, 1000, func(b *bed) {
		b.event(1, 90)
		b.event(2, 90)
		require.False(b, b.Closing())
		b.Flush()
		require.Len(b, b.pipe.text(), 180)
		require.Equal(b, queuedAndWriten, b.steps(2))
	})
}

// The close code comes after the messages queued before it, in every state of the outbox.
func TestCloseSaysGoodbye(t *testing.T) {
	inBubble(t, 1000, func(b *bed) {
		b.Queue([]byte("last "))
		require.True(b, b.Close(errcode.CloseGoingAway, "bye"))
		require.Equal(b, "last <4000>", b.pipe.text())
		require.Equal(b, time.Now().Add(outbox.CloseGrace), b.pipe.readDeadline)
		require.Equal(b, errcode.CloseGoingAway, b.End())
		require.True(b, b.pipe.closed)
		<-b.Done()
	})
	inBubble(t, 3, func(b *bed) {
		b.send("0123")
		synctest.Wait()
		require.True(b, b.Close(errcode.CloseGoingAway, "bye"))
		require.Equal(b, time.Now().Add(outbox.CloseGrace), b.pipe.writeDeadline, "the write under way gets no more time")
		time.Sleep(time.Second)
		b.pipe.read <- 1
		synctest.Wait()
		require.Equal(b, time.Now().Add(outbox.CloseGrace), b.pipe.writeDeadline, "nor does the close code")
		b.pipe.read <- 100
		synctest.Wait()
		require.Equal(b, "0123<4000>", b.pipe.text())
	})
}

// A client that does not read in time is slow; after any other failure of the transport the client is lost.
func TestWhyALinkEnded(t *testing.T) {
	inBubble(t, 0, func(b *bed) {
		b.event(1, 10)
		b.Flush()
		begun := time.Now()
		b.shared.Writers.Wait()
		require.Equal(b, b.shared.WriteTimeout, time.Since(begun))
		require.True(b, b.Closing())
		require.True(b, b.pipe.closed)
		require.Equal(b, errcode.CloseSlow, b.End())
		require.Equal(b, queued, b.steps(1))
	})
	inBubble(t, 0, func(b *bed) {
		b.send("x")
		synctest.Wait()
		_ = b.pipe.Close()
		b.shared.Writers.Wait()
		require.Zero(b, b.End(), "lost")
	})
	inBubble(t, 0, func(b *bed) {
		b.pipe.failure = errGone
		b.send("x")
		require.True(b, b.pipe.closed)
		require.Zero(b, b.QueuedBytes())
		require.Zero(b, b.End())
	})
}

// Callers of WaitForRoom continue when half of the queue is free, and return false when the link closes or ends.
func TestWaitingForRoom(t *testing.T) {
	wait := func(b *bed) chan bool {
		result := make(chan bool, 1)
		go func() { result <- b.WaitForRoom() }()
		synctest.Wait()
		return result
	}
	inBubble(t, 0, func(b *bed) {
		require.True(b, b.WaitForRoom())
		b.send("0123456789012345678901234567890123456789012345678901234567890")
		waiting := wait(b)
		require.Empty(b, waiting)
		b.pipe.read <- 1000
		require.True(b, <-waiting)
	})
	for name, end := range map[string]func(b *bed){
		"closed": func(b *bed) { b.Close(errcode.CloseGoingAway, "") },
		"ended":  func(b *bed) { b.End() },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 0, func(b *bed) {
				b.send("0123456789012345678901234567890123456789012345678901234567890")
				waiting := wait(b)
				end(b)
				require.False(b, <-waiting)
			})
		})
	}
}

// The recorder records exactly the messages that the operating system has accepted.
func TestWhatIsWrittenIsRecorded(t *testing.T) {
	inBubble(t, 15, func(b *bed) {
		b.event(1, 10)
		b.Flush()
		require.Equal(b, queuedAndWriten, b.steps(1))
		b.event(2, 10)
		b.Flush()
		require.Equal(b, queued, b.steps(2), "half of it is written")
		b.pipe.read <- 100
		synctest.Wait()
		require.Equal(b, queuedAndWriten, b.steps(2))
		b.send("an answer")
		require.Len(b, b.steps(2), 2, "answers are not recorded")
	})
}
