// Package publish sends committed results to the gateways of the senders, and committed events and receipts to the gateways of
// the members. It never waits for an answer.
package publish

import (
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/delivery/metrics"
)

const (
	// maxPublish is the size above which a message to gateways is split. publishMargin is the allowed overhead of a
	// message over its parts.
	maxPublish    = 512 << 10
	publishMargin = 16 << 10
	// maxLive is the size above which the live events of a conversation are split into several messages. A gateway queues
	// a whole message to every reader at once. If the message exceeds a quarter of a reader's queue (64 KiB by default),
	// the gateway fills the queues gradually instead.
	maxLive = 48 << 10
)

// Bus is the part of bus.Bus that a publisher uses.
type Bus interface {
	// PublishMsg sends a message. It copies the message's data before it returns.
	PublishMsg(msg *nats.Msg) error
	// MaxPayload returns the maximum size of a message's data, in bytes.
	MaxPayload() int64
}

// Publisher sends committed results, events and receipts to gateways. A message may be lost: the store has all of its
// content, and the next session of the partition republishes the latest results and events. Publisher is not safe for
// concurrent use.
type Publisher struct {
	bus     Bus
	log     *slog.Logger
	metrics *metrics.Metrics
	worker  string
	limit   int
	scratch []byte
}

// New makes a publisher; worker is the worker's name in live events.
func New(bus Bus, worker string, log *slog.Logger, metrics *metrics.Metrics) *Publisher {
	limit := maxPublish
	if most := int(bus.MaxPayload()); most > 2*publishMargin {
		limit = min(limit, most-publishMargin)
	}
	return &Publisher{bus: bus, log: log, metrics: metrics, worker: worker, limit: limit}
}

// Answer is the result of a command and the inbox of the gateway that sent the command.
type Answer struct {
	Inbox  string
	Result *brokerv1.Result
}

// Results sends answers in the given order, one message for each inbox, or several if they are large.
func (p *Publisher) Results(answers []Answer, header nats.Header) {
	byInbox := map[string]*brokerv1.Results{}
	sizes := map[string]int{}
	for _, a := range answers {
		if !ValidInbox(a.Inbox) {
			continue
		}
		results := byInbox[a.Inbox]
		if results == nil {
			results = &brokerv1.Results{}
			byInbox[a.Inbox] = results
		}
		size := a.Result.SizeVT()
		if sizes[a.Inbox] += size; sizes[a.Inbox] > p.limit && len(results.GetResults()) > 0 {
			p.send(broker.ResultSubject(a.Inbox), results, header)
			results.Results, sizes[a.Inbox] = results.GetResults()[:0], size
		}
		results.Results = append(results.Results, a.Result)
	}
	for inbox, results := range byInbox {
		p.send(broker.ResultSubject(inbox), results, header)
	}
}

// Origin describes the commit of published events.
type Origin struct {
	// Committed is when this worker received the answer to the commit of the events; zero for republished events.
	Committed time.Time
	// Traceparents are the trace contexts by index of the events; nil if none is sampled.
	Traceparents []string
}

// Events publishes events, and the users who became members by them. The events of each conversation must be in rising
// order. It returns the conversations whose events could not all be sent; nil if all were sent.
func (p *Publisher) Events(events []*conversationv1.Event, from Origin) (unpublished map[ids.Conversation]struct{}) {
	type group struct {
		live brokerv1.Live
		size int
	}
	groups := make(map[string]*group, min(len(events), 64))
	flush := func(g *group) {
		if !slices.ContainsFunc(g.live.GetTraceparents(), func(s string) bool { return s != "" }) {
			g.live.Traceparents = nil
		}
		id := ids.Conversation(g.live.GetEvents()[0].GetConversationId())
		if !p.send(broker.LiveSubject(id), &g.live, nil) {
			if unpublished == nil {
				unpublished = map[ids.Conversation]struct{}{}
			}
			unpublished[id] = struct{}{}
		}
		g.live.Events, g.live.Traceparents, g.size = g.live.GetEvents()[:0], g.live.GetTraceparents()[:0], 0
	}
	for i, event := range events {
		// Publish the new members before the event, so that their gateways subscribe as early as possible.
		if users := conversation.Joiners(event); len(users) > 0 {
			joined := &brokerv1.Joined{ConversationId: event.GetConversationId(), Seq: event.GetSeq(), UserIds: users}
			if !from.Committed.IsZero() {
				joined.CommittedMs = from.Committed.UnixMilli()
			}
			p.send(broker.JoinedSubject, joined, nil)
		}
		g := groups[event.GetConversationId()]
		if g == nil {
			g = &group{}
			if !from.Committed.IsZero() {
				g.live.Worker, g.live.CommittedNs = p.worker, from.Committed.UnixNano()
			}
			groups[event.GetConversationId()] = g
		}
		size, n := event.SizeVT(), len(g.live.GetEvents())
		if n > 0 && (g.size+size > min(p.limit, maxLive) || g.live.GetEvents()[n-1].GetSeq()+1 != event.GetSeq()) {
			flush(g)
		}
		g.live.Events = append(g.live.Events, event)
		g.size += size
		if from.Traceparents != nil {
			g.live.Traceparents = append(g.live.Traceparents, from.Traceparents[i])
		}
	}
	for _, g := range groups {
		flush(g)
	}
	return unpublished
}

// Receipt sends a conversation's receipt.
func (p *Publisher) Receipt(r *conversationv1.Receipt) {
	p.send(broker.LiveSubject(ids.Conversation(r.GetConversationId())), &brokerv1.Live{Receipt: r}, nil)
	p.metrics.Receipts.Inc()
}

// message is the interface that all generated messages have in common.
type message interface {
	SizeVT() int
	MarshalToSizedBufferVT(buf []byte) (int, error)
}

// send publishes one message and reports whether it succeeded. A failure is counted and not retried: while the connection
// is lost, nothing can be published; when it is restored, the next session republishes the latest messages.
func (p *Publisher) send(subject string, m message, header nats.Header) bool {
	size := m.SizeVT()
	if cap(p.scratch) < size {
		p.scratch = make([]byte, size+size/4)
	}
	buf := p.scratch[:size]
	_, err := m.MarshalToSizedBufferVT(buf)
	if err == nil {
		// PublishMsg copies the bytes before it returns, so the buffer can be reused.
		err = p.bus.PublishMsg(&nats.Msg{Subject: subject, Header: header, Data: buf})
	}
	if err != nil {
		p.metrics.PublishFailures.Inc()
		p.log.Debug("could not publish", "error", err)
	}
	return err == nil
}

// ValidInbox reports whether an inbox can be part of a subject. The inbox comes from the stream, so it is untrusted
// input.
func ValidInbox(inbox string) bool {
	if inbox == "" || len(inbox) > 200 || inbox[0] == '.' || inbox[len(inbox)-1] == '.' || strings.Contains(inbox, "..") {
		return false
	}
	for i := range len(inbox) {
		if c := inbox[i]; c <= ' ' || c >= 0x7f || c == '*' || c == '>' {
			return false
		}
	}
	return true
}
