package commit

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/delivery/cache"
	"github.com/runnelhq/runnel/services/delivery/dedupe"
	"github.com/runnelhq/runnel/services/delivery/deliverytest"
	"github.com/runnelhq/runnel/services/delivery/flight"
	"github.com/runnelhq/runnel/services/delivery/metrics"
	"github.com/runnelhq/runnel/services/delivery/partition/plan"
	"github.com/runnelhq/runnel/services/delivery/partition/takeover"
	"github.com/runnelhq/runnel/services/delivery/publish"
	"github.com/runnelhq/runnel/services/delivery/source"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	tries   = 3           // attempts for each batch
	timeout = time.Second // time limit of each call
	inbox   = "inbox"     // inbox of the commands that deliverytest makes
)

// host is a fake worker that records the committer's calls. Its Sleep returns at once.
type host struct {
	t *testing.T
	// stopAfter is the number of waits after which Stopped returns true; 0 for never.
	stopAfter int

	waits, looks, calms int
	alarms              []error
	positions           [][2]ids.Sequence
	marks               []*historyv1.Watermark
}

func (h *host) Stopped() bool                { return h.stopAfter > 0 && h.waits >= h.stopAfter }
func (h *host) LookAtStream(context.Context) { h.looks++ }
func (h *host) Alarm(err error)              { h.alarms = append(h.alarms, err) }
func (h *host) Calm()                        { h.calms++ }
func (h *host) SetPosition(watermark, last ids.Sequence) {
	h.positions = append(h.positions, [2]ids.Sequence{watermark, last})
}
func (h *host) Committed(watermark *historyv1.Watermark) { h.marks = append(h.marks, watermark) }
func (h *host) Sleep(d time.Duration) {
	require.Positive(h.t, d)
	h.waits++
	require.Less(h.t, h.waits, 100, "it tries for ever")
}

// shop is a store in memory. It records requests and calls the hook of each method, if the hook is set, before the
// request.
type shop struct {
	*deliverytest.History

	appends       []*historyv1.AppendRequest
	deadlines     []time.Duration // of the appends
	conversations [][]string
	needs         []int // number of needs in each call
	commands      []int // number of commands in each call
	refusals      int   // number of calls

	appending func() error
	loading   func() error
	finding   func() error
	facts     func(answer *historyv1.GetFactsResponse) (*historyv1.GetFactsResponse, error)
	listing   func(in *historyv1.ListRefusalsRequest) error
	found     func(answer *historyv1.FindCommandsResponse)
	listed    func(answer *historyv1.ListRefusalsResponse)
}

func (s *shop) Append(ctx context.Context, in *historyv1.AppendRequest, opts ...grpc.CallOption) (*historyv1.AppendResponse, error) {
	s.appends = append(s.appends, in)
	if deadline, ok := ctx.Deadline(); ok {
		s.deadlines = append(s.deadlines, time.Until(deadline))
	}
	if s.appending != nil {
		if err := s.appending(); err != nil {
			return nil, err
		}
	}
	return s.History.Append(ctx, in, opts...)
}

func (s *shop) GetConversations(ctx context.Context, in *historyv1.GetConversationsRequest, opts ...grpc.CallOption) (*historyv1.GetConversationsResponse, error) {
	s.conversations = append(s.conversations, in.GetConversationIds())
	if s.loading != nil {
		if err := s.loading(); err != nil {
			return nil, err
		}
	}
	return s.History.GetConversations(ctx, in, opts...)
}

func (s *shop) FindCommands(ctx context.Context, in *historyv1.FindCommandsRequest, opts ...grpc.CallOption) (*historyv1.FindCommandsResponse, error) {
	s.commands = append(s.commands, len(in.GetCommands()))
	if s.finding != nil {
		if err := s.finding(); err != nil {
			return nil, err
		}
	}
	answer, err := s.History.FindCommands(ctx, in, opts...)
	if err == nil && s.found != nil {
		s.found(answer)
	}
	return answer, err
}

func (s *shop) GetFacts(ctx context.Context, in *historyv1.GetFactsRequest, opts ...grpc.CallOption) (*historyv1.GetFactsResponse, error) {
	s.needs = append(s.needs, len(in.GetNeeds()))
	answer, err := s.History.GetFacts(ctx, in, opts...)
	if err == nil && s.facts != nil {
		return s.facts(answer)
	}
	return answer, err
}

func (s *shop) ListRefusals(ctx context.Context, in *historyv1.ListRefusalsRequest, opts ...grpc.CallOption) (*historyv1.ListRefusalsResponse, error) {
	s.refusals++
	if s.listing != nil {
		if err := s.listing(in); err != nil {
			return nil, err
		}
	}
	answer, err := s.History.ListRefusals(ctx, in, opts...)
	if err == nil && s.listed != nil {
		s.listed(answer)
	}
	return answer, err
}

// bench is a committer with its dependencies.
type bench struct {
	*Committer

	t        *testing.T
	store    *shop
	host     *host
	conn     *deliverytest.Conn
	registry *prometheus.Registry
	log      *bytes.Buffer
	clock    time.Time // advances by a millisecond at each read
}

// setup makes a committer with an empty store.
func setup(t *testing.T) *bench {
	t.Helper()
	return over(t, &shop{History: deliverytest.NewHistory(1)}, &takeover.Place{Stored: &historyv1.Watermark{}, Identity: "s", BeginEpoch: true})
}

// over makes a committer that begins at a given place of a store.
func over(t *testing.T, history *shop, at *takeover.Place) *bench {
	t.Helper()
	b := &bench{t: t, store: history, host: &host{t: t}, conn: &deliverytest.Conn{Max: 1 << 20}, registry: prometheus.NewRegistry(), log: &bytes.Buffer{}, clock: time.UnixMilli(100_000)}
	m, err := metrics.New(b.registry, 1, time.Now)
	require.NoError(t, err)
	log := slog.New(slog.NewTextHandler(b.log, nil))
	b.Committer = New(Config{
		Host: b.host, Partition: 0, Stream: "IN_0", History: history, Planner: &plan.Planner{Partitions: 1, Apply: conversation.Apply},
		Cache: cache.New(10_000), Refusals: dedupe.NewRefusals(100), Publisher: publish.New(b.conn, "w", log, m),
		Recorder: flight.NewRecorder(1000, time.UnixMilli(0)), Tracer: trace.Tracer(noop.Tracer{}), Metrics: m, Gauges: m.Partition(0), Log: log,
		Now:      func() time.Time { b.clock = b.clock.Add(time.Millisecond); return b.clock },
		MaxTries: tries, AppendTimeout: timeout,
	}, at)
	return b
}

// again makes the committer of the next session, with nothing in memory.
func (b *bench) again() *bench {
	b.t.Helper()
	next := over(b.t, &shop{History: b.store.History}, b.place())
	require.NoError(b.t, next.LoadRefusals(b.t.Context(), b.store.Mark().GetTimeNs()/1e6))
	return next
}

// place returns the place at which the next session begins.
func (b *bench) place() *takeover.Place {
	return &takeover.Place{Stored: b.store.Mark(), Identity: "s", Sequence: ids.Sequence(b.store.Mark().GetSequence())}
}

// commit commits messages and requires success.
func (b *bench) commit(entries []source.Message) {
	b.t.Helper()
	require.NoError(b.t, b.Commit(b.t.Context(), entries, tries))
	require.Equal(b.t, entries[len(entries)-1].Sequence, b.Position())
}

// metric returns the sum of a metric over its labels, and the number of its observations if it is a histogram. A label
// that is not empty selects one series.
func (b *bench) metric(name, label string) (value float64, observed int) {
	b.t.Helper()
	families, err := b.registry.Gather()
	require.NoError(b.t, err)
	for _, family := range families {
		if family.GetName() != "runnel_delivery_"+name {
			continue
		}
		for _, m := range family.GetMetric() {
			if label == "" || m.GetLabel()[0].GetValue() == label {
				value += m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetHistogram().GetSampleSum()
				observed += int(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return value, observed
}

func (b *bench) count(name, label string) int {
	b.t.Helper()
	value, _ := b.metric(name, label)
	return int(value)
}

// told returns the results and events that were published since the last call.
func (b *bench) told() (results []*brokerv1.Result, events []*conversationv1.Event) {
	b.t.Helper()
	for _, msg := range b.conn.Take() {
		switch {
		case strings.HasPrefix(msg.Subject, "result."):
			var r brokerv1.Results
			require.NoError(b.t, r.UnmarshalVT(msg.Data))
			results = append(results, r.GetResults()...)
		case strings.HasPrefix(msg.Subject, "live."):
			var l brokerv1.Live
			require.NoError(b.t, l.UnmarshalVT(msg.Data))
			events = append(events, l.GetEvents()...)
		}
	}
	return results, events
}

// messages returns commands as stream messages, beginning at a sequence.
func messages(t *testing.T, from uint64, commands ...*brokerv1.Command) []source.Message {
	t.Helper()
	list := deliverytest.Messages(t, commands...)
	for i := range list {
		list[i].Sequence = ids.Sequence(from + uint64(i))
		list[i].TimeNs = int64(list[i].Sequence) * 1e6
	}
	return list
}

var (
	create = deliverytest.Command("", "ann", 1, deliverytest.Group("g", "bob"))
	group  = ids.Conversation(create.GetConversationId())
)

// text returns a message of ann in the group.
func text(n int, s string) *brokerv1.Command {
	return deliverytest.Command(string(group), "ann", n, deliverytest.Text(s))
}

// intruder returns a command that is refused.
func intruder(n int) *brokerv1.Command {
	return deliverytest.Command(string(group), "eve", n, deliverytest.Text("x"))
}

// codesOf returns the error code of each outcome, or 0 for an outcome without an error.
func codesOf(results []*brokerv1.Result) (list []conversationv1.ErrorCode) {
	for _, r := range results {
		list = append(list, r.GetOutcome().GetError().GetCode())
	}
	return list
}

func seqsOf(results []*brokerv1.Result) (list []uint64) {
	for _, r := range results {
		list = append(list, r.GetOutcome().GetSeq())
	}
	return list
}

// times returns a hook that fails n times with a code.
func times(n int, code codes.Code) func() error {
	return func() error {
		if n--; n >= 0 {
			return status.Error(code, "no")
		}
		return nil
	}
}

// rejecting makes the store reject appends that contain a text.
func (b *bench) rejecting(what string, code codes.Code) {
	b.store.appending = func() error {
		for _, event := range b.store.appends[len(b.store.appends)-1].GetEvents() {
			if bytes.Contains(event.GetBody(), []byte(what)) {
				return status.Error(code, "no")
			}
		}
		return nil
	}
}
