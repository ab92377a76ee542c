package k8stest

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	autoscaling "k8s.io/api/autoscaling/v2"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestGatewaysAreScaledByTheirConnections(t *testing.T) {
	ctx := deadline(t)
	r := install(ctx, t, "--set", "gateway.autoscaling.enabled=true,gateway.autoscaling.connectionsPerPod=10000")

	// Nobody serves metrics yet. That the gateways went from the one pod of a new Deployment to minReplicas shows that
	// the autoscaler found them.
	r.awaitCondition(ctx, t, autoscaling.AbleToScale, core.ConditionTrue, "SucceededGetScale")
	r.awaitCondition(ctx, t, autoscaling.ScalingActive, core.ConditionFalse, "FailedGetPodsMetric")

	metrics := startMetricsServer(ctx, t)
	metrics.connections.Store(1_000)
	r.awaitCondition(ctx, t, autoscaling.ScalingActive, core.ConditionTrue, "ValidMetricFound")
	require.Len(t, r.pods(ctx, t, "gateway"), components["gateway"])

	// 10,000 are wanted on each.
	metrics.connections.Store(35_000)
	r.awaitGateways(ctx, t, 4)

	// Most are gone, but not for long enough to make the rest reconnect elsewhere.
	metrics.connections.Store(1_000)
	r.awaitCondition(ctx, t, autoscaling.AbleToScale, core.ConditionTrue, "ScaleDownStabilized")
	require.Len(t, r.pods(ctx, t, "gateway"), 4)

	t.Run("a release that is upgraded keeps what the autoscaler chose", func(t *testing.T) {
		followed := r.follow(ctx, t)
		r.upgrade(ctx, t, "--set", "image.tag=next")
		r.awaitImage(ctx, t, ":next")
		r.awaitGateways(ctx, t, 4)
		require.Equal(t, 4, followed.fewest(t)["gateway"])
	})
}

// awaitCondition waits until the autoscaler of the gateways says something of itself.
func (r *release) awaitCondition(
	ctx context.Context, t *testing.T, condition autoscaling.HorizontalPodAutoscalerConditionType, status core.ConditionStatus, reason string,
) {
	t.Helper()
	eventually(ctx, t, fmt.Sprintf("%s is %s: %s", condition, status, reason), func(ctx context.Context) error {
		scaler, err := cluster.Client.AutoscalingV2().HorizontalPodAutoscalers(r.namespace).Get(ctx, "runnel-gateway", meta.GetOptions{})
		if err != nil {
			return err
		}
		for _, is := range scaler.Status.Conditions {
			if is.Type == condition && is.Status == status && is.Reason == reason {
				return nil
			}
		}
		return fmt.Errorf("it says %v", scaler.Status.Conditions)
	})
}

// awaitGateways waits until so many gateways serve, and no more are there.
func (r *release) awaitGateways(ctx context.Context, t *testing.T, want int) {
	t.Helper()
	eventually(ctx, t, fmt.Sprintf("%d gateways serve", want), func(ctx context.Context) error {
		pods := r.pods(ctx, t, "gateway")
		serving := 0
		for i := range pods {
			if serves(&pods[i]) {
				serving++
			}
		}
		if serving != want || len(pods) != want {
			return fmt.Errorf("%d of %d do", serving, len(pods))
		}
		return nil
	})
}
