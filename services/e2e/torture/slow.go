package torture

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gorilla/websocket"

	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/services/e2e/launch"
)

// slowReader is a client that stops reading from time to time while another user writes to it. Its socket has a small
// buffer, so the gateway's queue for it fills. The gateway must close its connection with a code that asks it to
// reconnect. Then it resumes. Its observer checks the gateway's promise, so it must receive all missed events.
type slowReader struct {
	*observer
	talker *device
	// id is the conversation of the reader and the writer.
	id      string
	gateway []*launch.Process

	mu      sync.Mutex
	reading chan struct{} // closed while the reader reads
	told    int           // number of connections that ended with CloseSlow
}

const (
	slowText     = 8000 // size in bytes of each message to the slow reader
	slowMessages = 25   // number of messages sent at its first stop; more are sent each time until its connection is closed
	slowTime     = 20 * time.Second
	// slowMetric counts connections that were closed as slow, whether or not the close code reached the client.
	slowMetric = `runnel_gateway_closes_total{code="slow"}`
)

func newSlowReader(o *observer, talker *device, id string, gateways []*launch.Process) *slowReader {
	s := &slowReader{observer: o, talker: talker, id: id, gateway: gateways, reading: make(chan struct{})}
	close(s.reading)
	o.stays = true
	o.gate = s.gate
	o.ended = s.ended
	return s
}

// gate blocks the reader while it must not read.
func (s *slowReader) gate(ctx context.Context) {
	s.mu.Lock()
	reading := s.reading
	s.mu.Unlock()
	select {
	case <-reading:
	case <-ctx.Done():
	}
}

func (s *slowReader) ended(err error) {
	var closed *websocket.CloseError
	if errors.As(err, &closed) && closed.Code == int(errcode.CloseSlow) {
		s.mu.Lock()
		s.told++
		s.mu.Unlock()
	}
}

// meet stops the reader while an increasing number of messages is written to it, until a gateway has closed its
// connection. It then waits until the reader has caught up.
func (s *slowReader) meet(ctx context.Context, i *injector) (time.Time, error) {
	patience, cancel := context.WithTimeout(ctx, slowTime)
	defer cancel()
	before := s.closed(patience)
	var err error
	for volume := 1; err == nil && s.closed(patience) <= before; volume++ {
		err = s.stumble(patience, volume*slowMessages)
	}
	closed := int(s.closed(ctx) - before)
	s.mu.Lock()
	told := s.told
	s.mu.Unlock()
	i.count(func(c *Counts) { c.Slow += closed; c.SlowTold = told })
	if err != nil && ctx.Err() == nil && i.shown {
		i.record.Violated(violation("slow reader", "within %v: %v", slowTime, err))
	}
	return time.Now(), nil
}

// stumble stops the reader while messages are written, and then lets it read until it has all of them. It uses a new
// connection, to which the system does not give much memory yet.
func (s *slowReader) stumble(ctx context.Context, messages int) error {
	if err := s.anew(ctx); err != nil {
		return err
	}
	reading := make(chan struct{})
	s.mu.Lock()
	s.reading = reading
	s.mu.Unlock()
	last, err := s.flood(ctx, messages)
	close(reading)
	if err != nil {
		return err
	}
	return s.caughtUp(ctx, last)
}

// flood writes messages, and returns the seq of the last one.
func (s *slowReader) flood(ctx context.Context, messages int) (last uint64, err error) {
	text := message(strings.Repeat("slow and steady ", slowText/16))
	written := make([]*sending, messages)
	for n := range written {
		if written[n], err = s.talker.send(s.id, text); err != nil {
			return 0, err
		}
	}
	for _, sent := range written {
		select {
		case <-sent.done:
			last = max(last, sent.answer.Seq)
		case <-ctx.Done():
			return last, errors.New("what was written to the reader was not answered")
		}
	}
	return last, nil
}

func (s *slowReader) caughtUp(ctx context.Context, last uint64) error {
	for {
		if seq, _ := s.positionOf(s.id); seq >= last {
			return nil
		}
		if launch.Sleep(ctx, 20*time.Millisecond) != nil {
			return errors.New("the reader went on and did not catch up")
		}
	}
}

// closed returns the number of connections that gateways have closed as slow.
func (s *slowReader) closed(ctx context.Context) (sum float64) {
	for _, p := range s.gateway {
		metrics, _ := p.Metrics(ctx) // a gateway that is down has closed nothing
		sum += metrics[slowMetric]
	}
	return sum
}

// small makes a socket with a small buffer. Small packets also keep the buffer of the other side small.
func small(_, _ string, raw syscall.RawConn) (err error) {
	controlled := raw.Control(func(fd uintptr) {
		err = errors.Join(
			syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096),
			syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 536),
		)
	})
	return errors.Join(controlled, err)
}

// smallSockets opens connections with small buffers.
var smallSockets = &net.Dialer{Control: small}
