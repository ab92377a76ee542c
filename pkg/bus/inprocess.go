package bus

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
)

// maxPayload is the default of NATS servers, so that both buses accept the same messages.
const maxPayload = 1 << 20

// InProcess is a bus within one process. The publisher's goroutine calls the functions of subscriptions itself.
type InProcess struct {
	dropped prometheus.Counter
	log     *slog.Logger

	mu            sync.RWMutex
	subscriptions map[string][]*subscription // by subject; a list is replaced, never changed
}

var _ Bus = (*InProcess)(nil)

type subscription struct {
	bus     *InProcess
	subject string
	handle  nats.MsgHandler // nil if the subscription has a channel
	to      chan *nats.Msg
	ended   atomic.Bool
}

// NewInProcess makes a bus without subscriptions.
func NewInProcess(log *slog.Logger, registerer prometheus.Registerer) (*InProcess, error) {
	b := &InProcess{
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "runnel_bus_dropped_total", Help: "Messages within the process that were lost because the queue of their receiver was full.",
		}),
		log: log, subscriptions: map[string][]*subscription{},
	}
	if err := registerer.Register(b.dropped); err != nil {
		return nil, fmt.Errorf("register the metrics of the bus: %w", err)
	}
	return b, nil
}

// PublishMsg implements Bus.
func (b *InProcess) PublishMsg(msg *nats.Msg) error {
	if len(msg.Data) > maxPayload {
		return fmt.Errorf("publish %d bytes to %s: %w", len(msg.Data), msg.Subject, nats.ErrMaxPayload)
	}
	b.mu.RLock()
	receivers := b.subscriptions[msg.Subject]
	b.mu.RUnlock()
	if len(receivers) == 0 {
		return nil
	}
	shared := &nats.Msg{Subject: msg.Subject, Header: msg.Header, Data: bytes.Clone(msg.Data)}
	for _, s := range receivers {
		s.deliver(shared)
	}
	return nil
}

func (s *subscription) deliver(msg *nats.Msg) {
	switch {
	case s.ended.Load():
	case s.handle != nil:
		s.handle(msg)
	default:
		select {
		case s.to <- msg:
		default:
			s.bus.drop(msg)
		}
	}
}

func (b *InProcess) drop(msg *nats.Msg) {
	b.dropped.Inc()
	b.log.Warn("a message was lost because the queue of its receiver was full", "subject", msg.Subject)
}

// Subscribe implements Bus.
func (b *InProcess) Subscribe(subject string, handle nats.MsgHandler) (Subscription, error) {
	return b.add(&subscription{bus: b, subject: subject, handle: handle}), nil
}

// ChanSubscribe implements Bus.
func (b *InProcess) ChanSubscribe(subject string, to chan *nats.Msg) (Subscription, error) {
	return b.add(&subscription{bus: b, subject: subject, to: to}), nil
}

func (b *InProcess) add(s *subscription) *subscription {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.subscriptions[s.subject] = append(slices.Clip(b.subscriptions[s.subject]), s)
	return s
}

// Unsubscribe implements Subscription.
func (s *subscription) Unsubscribe() error {
	if s.ended.Swap(true) {
		return nil
	}
	b := s.bus
	b.mu.Lock()
	defer b.mu.Unlock()
	left := slices.DeleteFunc(slices.Clone(b.subscriptions[s.subject]), func(other *subscription) bool { return other == s })
	if len(left) == 0 {
		delete(b.subscriptions, s.subject)
		return nil
	}
	b.subscriptions[s.subject] = left
	return nil
}

// FlushWithContext implements Bus: subscriptions are in effect at once.
func (b *InProcess) FlushWithContext(context.Context) error { return nil }

// MaxPayload implements Bus.
func (b *InProcess) MaxPayload() int64 { return maxPayload }
