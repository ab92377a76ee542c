package publish

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/delivery/deliverytest"
	"github.com/runnelhq/runnel/services/delivery/metrics"
)

// setup makes a publisher whose messages are kept.
func setup(t *testing.T, most int64) (*Publisher, *deliverytest.Conn) {
	t.Helper()
	m, err := metrics.New(prometheus.NewRegistry(), 1, time.Now)
	require.NoError(t, err)
	conn := &deliverytest.Conn{Max: most}
	return New(conn, "w", slog.New(slog.DiscardHandler), m), conn
}

// decoded decodes messages, whose subjects must begin with a prefix, into what new makes.
func decoded[T interface{ UnmarshalVT(data []byte) error }](t *testing.T, messages []*nats.Msg, prefix string, empty func() T) []T {
	t.Helper()
	list := make([]T, len(messages))
	for i, msg := range messages {
		require.True(t, strings.HasPrefix(msg.Subject, prefix), msg.Subject)
		list[i] = empty()
		require.NoError(t, list[i].UnmarshalVT(msg.Data))
	}
	return list
}

func lives(t *testing.T, messages []*nats.Msg) []*brokerv1.Live {
	t.Helper()
	return decoded(t, messages, "live.", func() *brokerv1.Live { return &brokerv1.Live{} })
}

func answer(inbox string, n int) Answer {
	return Answer{Inbox: inbox, Result: &brokerv1.Result{Sender: "ann", Outcome: &conversationv1.Outcome{CommandId: deliverytest.CommandID(n)}}}
}

func eventOf(id string, seq uint64) *conversationv1.Event {
	return &conversationv1.Event{ConversationId: id, Seq: seq, Body: []byte("the body of a message")}
}

func seqs(events []*conversationv1.Event) (list []uint64) {
	for _, event := range events {
		list = append(list, event.GetSeq())
	}
	return list
}

// A message to gateways is at most half a megabyte, and leaves room below what the server accepts.
func TestLimit(t *testing.T) {
	for most, limit := range map[int64]int{8 << 20: 512 << 10, 512 << 10: 496 << 10, 32<<10 + 1: 16<<10 + 1, 32 << 10: 512 << 10, 0: 512 << 10} {
		p, _ := setup(t, most)
		require.Equal(t, limit, p.limit, "at most %d", most)
	}
}

// Each inbox gets its results in one message, in order, with the header; a result for no valid inbox is dropped.
func TestResultsByInbox(t *testing.T) {
	p, conn := setup(t, 1<<20)
	header := nats.Header{"traceparent": []string{"x"}}
	p.Results([]Answer{answer("a", 1), answer("b", 2), answer("", 3), answer("c.>", 4), answer("a", 5)}, header)
	sent := conn.Take()
	slices.SortFunc(sent, func(a, b *nats.Msg) int { return strings.Compare(a.Subject, b.Subject) })
	require.Len(t, sent, 2)
	for i, want := range []struct {
		subject string
		ids     []int
	}{{broker.ResultSubject("a"), []int{1, 5}}, {broker.ResultSubject("b"), []int{2}}} {
		require.Equal(t, want.subject, sent[i].Subject)
		require.Equal(t, header, sent[i].Header)
		var results brokerv1.Results
		require.NoError(t, results.UnmarshalVT(sent[i].Data))
		require.Len(t, results.GetResults(), len(want.ids))
		for j, n := range want.ids {
			require.True(t, proto.Equal(answer("", n).Result, results.GetResults()[j]))
		}
	}
	p.Results(nil, nil)
	require.Empty(t, conn.Take())
}

// Results above the limit go in several messages, in order and each once.
func TestResultsAreSplit(t *testing.T) {
	p, conn := setup(t, 1<<20)
	size := answer("", 1).Result.SizeVT()
	p.limit = 2 * size
	p.Results([]Answer{answer("a", 1), answer("a", 2), answer("a", 3), answer("a", 4), answer("a", 5)}, nil)
	var sizes []int
	var order []string
	for _, r := range decoded(t, conn.Take(), "result.", func() *brokerv1.Results { return &brokerv1.Results{} }) {
		sizes = append(sizes, len(r.GetResults()))
		for _, result := range r.GetResults() {
			order = append(order, result.GetOutcome().GetCommandId())
		}
	}
	require.Equal(t, []int{2, 2, 1}, sizes)
	require.True(t, slices.IsSorted(order))
	p.limit = 1 // one result is never split
	p.Results([]Answer{answer("a", 1), answer("a", 2)}, nil)
	require.Len(t, conn.Take(), 2)
}

// The events of a conversation go in one message, with the origin of their commit.
func TestEvents(t *testing.T) {
	p, conn := setup(t, 1<<20)
	committed := time.Unix(7, 9)
	unpublished := p.Events([]*conversationv1.Event{eventOf("a", 1), eventOf("b", 5), eventOf("a", 2)}, Origin{
		Committed: committed, Traceparents: []string{"", "t", ""},
	})
	require.Nil(t, unpublished)
	sent := lives(t, conn.Take())
	slices.SortFunc(sent, func(a, b *brokerv1.Live) int {
		return strings.Compare(a.GetEvents()[0].GetConversationId(), b.GetEvents()[0].GetConversationId())
	})
	require.Len(t, sent, 2)
	require.Equal(t, []uint64{1, 2}, seqs(sent[0].GetEvents()))
	require.Equal(t, []uint64{5}, seqs(sent[1].GetEvents()))
	require.Empty(t, sent[0].GetTraceparents(), "none of them is sampled")
	require.Equal(t, []string{"t"}, sent[1].GetTraceparents())
	for _, live := range sent {
		require.Equal(t, "w", live.GetWorker())
		require.Equal(t, committed.UnixNano(), live.GetCommittedNs())
	}

	// Events that are published again have no origin.
	p.Events([]*conversationv1.Event{eventOf("a", 1)}, Origin{})
	again := lives(t, conn.Take())[0]
	require.Empty(t, again.GetWorker())
	require.Zero(t, again.GetCommittedNs())
	require.Empty(t, again.GetTraceparents())
	require.Nil(t, p.Events(nil, Origin{}))
}

// A message holds consecutive events below the limit; its traces stay with their events.
func TestEventsAreSplit(t *testing.T) {
	p, conn := setup(t, 1<<20)
	size := eventOf("a", 1).SizeVT()
	p.limit = 2 * size
	p.Events([]*conversationv1.Event{eventOf("a", 1), eventOf("a", 2), eventOf("a", 3), eventOf("a", 5)}, Origin{Traceparents: []string{"1", "2", "3", "5"}})
	sent := lives(t, conn.Take())
	require.Len(t, sent, 3)
	require.Equal(t, []uint64{1, 2}, seqs(sent[0].GetEvents()))
	require.Equal(t, []string{"1", "2"}, sent[0].GetTraceparents())
	require.Equal(t, []uint64{3}, seqs(sent[1].GetEvents()), "the fourth event is missing")
	require.Equal(t, []string{"3"}, sent[1].GetTraceparents())
	require.Equal(t, []uint64{5}, seqs(sent[2].GetEvents()))
	p.limit = 1 // one event is never split
	p.Events([]*conversationv1.Event{eventOf("a", 1), eventOf("a", 2)}, Origin{})
	require.Len(t, conn.Take(), 2)
}

// Gateways learn of new members before they get the event.
func TestJoinersAreToldFirst(t *testing.T) {
	p, conn := setup(t, 1<<20)
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g", "bob"))
	result, refusal := conversation.Apply(nil, nil, create, deliverytest.Group("g", "bob"), 1)
	require.Nil(t, refusal)
	p.Events([]*conversationv1.Event{result.Event}, Origin{})
	sent := conn.Take()
	require.Len(t, sent, 2)
	require.Equal(t, broker.JoinedSubject, sent[0].Subject)
	var joined brokerv1.Joined
	require.NoError(t, joined.UnmarshalVT(sent[0].Data))
	require.Equal(t, create.GetConversationId(), joined.GetConversationId())
	require.EqualValues(t, 1, joined.GetSeq())
	require.ElementsMatch(t, []string{"ann", "bob"}, joined.GetUserIds())
	require.Zero(t, joined.GetCommittedMs(), "it is published again")
	require.Equal(t, broker.LiveSubject(ids.Conversation(create.GetConversationId())), sent[1].Subject)
	p.Events([]*conversationv1.Event{result.Event}, Origin{Committed: time.UnixMilli(77)})
	require.NoError(t, joined.UnmarshalVT(conn.Take()[0].Data))
	require.EqualValues(t, 77, joined.GetCommittedMs())
}

func TestReceipt(t *testing.T) {
	p, conn := setup(t, 1<<20)
	p.Receipt(&conversationv1.Receipt{ConversationId: "a", Version: 3})
	sent := conn.Take()
	require.Equal(t, broker.LiveSubject("a"), sent[0].Subject)
	require.EqualValues(t, 3, lives(t, sent)[0].GetReceipt().GetVersion())
	require.InDelta(t, 1, testutil.ToFloat64(p.metrics.Receipts), 0)
	require.InDelta(t, 0, testutil.ToFloat64(p.metrics.PublishFailures), 0)
}

// What cannot be published is counted, named and not retried; the next message is published.
func TestPublishFails(t *testing.T) {
	p, conn := setup(t, 1<<20)
	conn.FailWith(errors.New("not connected"))
	require.Equal(t, map[ids.Conversation]struct{}{"a": {}, "b": {}}, p.Events([]*conversationv1.Event{eventOf("a", 1), eventOf("b", 1)}, Origin{}))
	p.Results([]Answer{answer("a", 1)}, nil)
	require.InDelta(t, 3, testutil.ToFloat64(p.metrics.PublishFailures), 0)
	conn.FailWith(nil)
	require.Nil(t, p.Events([]*conversationv1.Event{eventOf("a", 2)}, Origin{}))
	require.Len(t, conn.Take(), 1)
}

// A long run of events of one conversation goes in messages that gateways need not send gradually.
func TestLongRunsAreSplitForGateways(t *testing.T) {
	p, conn := setup(t, 1<<20)
	size := eventOf("a", 1).SizeVT()
	var events []*conversationv1.Event
	for seq := range 2*maxLive/size + 1 {
		events = append(events, eventOf("a", uint64(seq+1)))
	}
	p.Events(events, Origin{})
	var got []uint64
	for _, live := range lives(t, conn.Take()) {
		require.Less(t, len(live.GetEvents())*size, maxLive+size)
		got = append(got, seqs(live.GetEvents())...)
	}
	require.Equal(t, seqs(events), got)
}
