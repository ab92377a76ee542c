package k8stest

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
	core "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubectl/pkg/drain"
)

func TestBudgetsLetOnePodGoAndHoldTheNext(t *testing.T) {
	ctx := deadline(t)
	r := install(ctx, t)
	for component := range components {
		t.Run(component, func(t *testing.T) {
			pods := r.pods(ctx, t, component)
			// The evicted pod's successor gets no node, so the component stays short of one.
			cordonAll(ctx, t, true)
			require.NoError(t, evict(ctx, &pods[0]))
			err := evict(ctx, &pods[1])
			require.True(t, apierrors.IsTooManyRequests(err), "%v", err)
			require.True(t, apierrors.HasStatusCause(err, policy.DisruptionBudgetCause), "%v", err)

			cordonAll(ctx, t, false)
			r.awaitReady(ctx, t)
			eventually(ctx, t, "the next may go", func(ctx context.Context) error { return evict(ctx, &pods[1]) })
			r.awaitReady(ctx, t)
		})
	}
	t.Run("without a budget both would go", func(t *testing.T) {
		budgets := cluster.Client.PolicyV1().PodDisruptionBudgets(r.namespace)
		require.NoError(t, budgets.Delete(ctx, "runnel-delivery", meta.DeleteOptions{}))
		pods := r.pods(ctx, t, "delivery")
		cordonAll(ctx, t, true)
		require.NoError(t, evict(ctx, &pods[0]))
		eventually(ctx, t, "the second goes too", func(ctx context.Context) error { return evict(ctx, &pods[1]) })
	})
}

// TestDrainingEveryNodeInTurn does what an operator does to upgrade nodes, with the code of `kubectl drain`.
func TestDrainingEveryNodeInTurn(t *testing.T) {
	ctx := deadline(t)
	r := install(ctx, t)
	followed := r.follow(ctx, t)
	nodes, err := cluster.Client.CoreV1().Nodes().List(ctx, meta.ListOptions{})
	require.NoError(t, err)
	helper := &drain.Helper{
		Ctx: ctx, Client: cluster.Client, DeleteEmptyDirData: true, GracePeriodSeconds: -1, Timeout: waitTimeout,
		Out: io.Discard, ErrOut: io.Discard,
	}
	drained := 0
	for i := range nodes.Items {
		node := &nodes.Items[i]
		drained += len(r.on(ctx, t, node.Name))
		require.NoError(t, drain.RunCordonOrUncordon(helper, node, true), node.Name)
		require.NoError(t, drain.RunNodeDrain(helper, node.Name), node.Name)
		require.Empty(t, r.on(ctx, t, node.Name))
		require.NoError(t, drain.RunCordonOrUncordon(helper, node, false), node.Name)
	}
	r.awaitReady(ctx, t)
	require.Greater(t, drained, len(components), "the nodes were empty")
	for component, count := range components {
		require.Equal(t, count-1, followed.fewest(t)[component], "%s while nodes were drained", component)
	}
}

// on are the pods of the release on a node.
func (r *release) on(ctx context.Context, t *testing.T, node string) []core.Pod {
	t.Helper()
	pods, err := cluster.Client.CoreV1().Pods(r.namespace).List(ctx, meta.ListOptions{FieldSelector: "spec.nodeName=" + node})
	require.NoError(t, err)
	return pods.Items
}

// evict asks for a pod's end as a drain does. A pod that is gone counts as evicted.
func evict(ctx context.Context, pod *core.Pod) error {
	err := cluster.Client.PolicyV1().Evictions(pod.Namespace).
		Evict(ctx, &policy.Eviction{ObjectMeta: meta.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace}})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// cordonAll closes or opens all nodes to new pods; they are open again after the test.
func cordonAll(ctx context.Context, t *testing.T, closed bool) {
	t.Helper()
	require.NoError(t, setSchedulable(ctx, !closed))
	if closed {
		t.Cleanup(func() { require.NoError(t, setSchedulable(context.WithoutCancel(ctx), true)) })
	}
}

func setSchedulable(ctx context.Context, open bool) error {
	nodes, err := cluster.Client.CoreV1().Nodes().List(ctx, meta.ListOptions{})
	if err != nil {
		return err
	}
	helper := &drain.Helper{Ctx: ctx, Client: cluster.Client, Out: io.Discard, ErrOut: io.Discard}
	var failures error
	for i := range nodes.Items {
		failures = errors.Join(failures, drain.RunCordonOrUncordon(helper, &nodes.Items[i], !open))
	}
	return failures
}
