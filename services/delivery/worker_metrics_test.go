package delivery

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/delivery/deliverytest"
)

// metric returns the value of a counter or gauge, or the number of observations of a histogram. label is the value of the
// metric's only label, or empty for a metric without labels. The result is -1 if the metric does not exist.
func (w *worker) metric(name, label string) float64 {
	families, err := w.metrics.Gather()
	if err != nil {
		return -1
	}
	for _, family := range families {
		if family.GetName() != "runnel_delivery_"+name {
			continue
		}
		for _, m := range family.GetMetric() {
			if label != "" && (len(m.GetLabel()) == 0 || m.GetLabel()[0].GetValue() != label) {
				continue
			}
			return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return -1
}

// During an outage of the store, metrics show the commands that wait and their partitions. After the outage, metrics show
// the outcomes.
func TestMetricsOfAnOutage(t *testing.T) {
	b := newBed(t, 1)
	w := b.startWorker(nil)
	b.eventually("running", func() bool { return w.state(0) == "running" })
	require.InDelta(t, 1, w.metric("partitions_owned", ""), 0)
	require.InDelta(t, 1, w.metric("partition_owned", "0"), 0)
	require.InDelta(t, 0, w.metric("lag_commands", "0"), 0)
	require.InDelta(t, 1, w.metric("partitions", ""), 0)
	require.GreaterOrEqual(t, w.metric("stream_fill_ratio", "0"), 0.0)
	require.GreaterOrEqual(t, w.metric("explain_window_seconds", ""), 0.0)

	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g"))
	id := create.GetConversationId()
	var away atomic.Bool
	away.Store(true)
	b.store.Fail(func(*historyv1.AppendRequest) error {
		if away.Load() {
			return status.Error(codes.Unavailable, "away")
		}
		return nil
	}, nil)
	b.putCommand(create)
	b.eventually("it is tried", func() bool { return w.metric("append_retries_total", "") > 0 })
	message := deliverytest.Command(id, "ann", 2, deliverytest.Text("x"))
	b.putCommand(message)
	b.putCommand(message)                                                        // repeated
	b.putCommand(deliverytest.Command(id, "ann", 2, deliverytest.Text("other"))) // conflict
	b.putCommand(deliverytest.Command(id, "eve", 3, deliverytest.Text("x")))     // refused
	b.put([]byte("\xff"))                                                        // dead letter
	b.eventually("the lag grows while nothing can be committed", func() bool { return w.metric("lag_commands", "0") == 6 })
	b.eventually("the rest waits", func() bool { return w.metric("intake_commands", "0") == 5 })
	require.InDelta(t, 0, w.metric("batch_commands", ""), 0)
	away.Store(false)
	b.eventually("all is committed", func() bool { return w.metric("lag_commands", "0") == 0 })
	for outcome, want := range map[string]float64{"committed": 2, "repeated": 1, "idempotency_conflict": 1, "not_found": 1, "dead_lettered": 1} {
		require.InDelta(t, want, w.metric("commands_total", outcome), 0, outcome)
	}
	require.InDelta(t, 0, w.metric("intake_commands", "0"), 0)
	require.InDelta(t, 2, w.metric("batch_commands", ""), 0)
	require.Greater(t, w.metric("append_seconds", ""), 2.0)
	require.InDelta(t, 6, w.metric("accepted_to_committed_seconds", ""), 0)
	b.eventually("it is told", func() bool { return w.metric("committed_to_published_seconds", "") == 2 })
	require.InDelta(t, 1, w.metric("takeovers_total", ""), 0)

	w.stop()
	for _, name := range []string{"partition_owned", "lag_commands", "intake_commands", "watermark", "partition_stopped"} {
		require.InDelta(t, -1, w.metric(name, "0"), 0, "%s: who does not own a partition does not report on it", name)
	}
	require.InDelta(t, 0, w.metric("partitions_owned", ""), 0)
}

// Metrics show waiting commands also while the store does not answer reads: a batch whose reads fail cannot be committed.
func TestMetricsOfQuestions(t *testing.T) {
	b := newBed(t, 1)
	var away atomic.Bool
	w := b.startWorker(func(_ *Config, d *Deps) {
		d.History = &reluctant{History: b.store, refuse: func() error {
			if away.Load() {
				return status.Error(codes.Unavailable, "away")
			}
			return nil
		}}
	})
	b.eventually("running", func() bool { return w.state(0) == "running" })
	away.Store(true)
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g"))
	b.putCommand(create)
	b.eventually("it is asked again", func() bool { return w.metric("read_retries_total", "") > 0 })
	b.putCommand(deliverytest.Command(create.GetConversationId(), "ann", 2, deliverytest.Text("x")))
	b.eventually("the lag grows", func() bool { return w.metric("lag_commands", "0") == 2 })
	away.Store(false)
	b.awaitEvent(create.GetConversationId(), 2)
	b.eventually("nothing waits", func() bool { return w.metric("lag_commands", "0") == 0 })
	require.InDelta(t, 0, w.metric("append_retries_total", ""), 0)
}

// reluctant is a store that does not always answer reads of conversations.
type reluctant struct {
	*deliverytest.History

	refuse func() error
}

func (r *reluctant) GetConversations(ctx context.Context, in *historyv1.GetConversationsRequest, opts ...grpc.CallOption) (*historyv1.GetConversationsResponse, error) {
	if err := r.refuse(); err != nil {
		return nil, err
	}
	return r.History.GetConversations(ctx, in, opts...)
}
