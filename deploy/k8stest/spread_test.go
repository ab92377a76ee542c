package k8stest

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

func TestPodsAreSpreadOverZones(t *testing.T) {
	ctx := deadline(t)
	r := install(ctx, t, "--set", "gateway.autoscaling.enabled=false,gateway.replicas=6,delivery.replicas=3")
	for component, zonesUsed := range map[string]int{"gateway": 3, "delivery": 3, "history": 2, "nats": 3} {
		byZone, byNode := place(t, r.pods(ctx, t, component))
		require.Len(t, byZone, zonesUsed, "%s: %v", component, byZone)
		if component == "nats" {
			require.Len(t, byNode, components["nats"], "no two NATS servers on one node: %v", byNode)
		}
	}
	t.Run("evenly if the operator insists", func(t *testing.T) {
		r.upgrade(ctx, t, "--set", "topologySpread.whenUnsatisfiable=DoNotSchedule")
		r.awaitImage(ctx, t, "") // whatever it is
		byZone, _ := place(t, r.pods(ctx, t, "gateway"))
		require.Equal(t, map[string]int{"zone-a": 2, "zone-b": 2, "zone-c": 2}, byZone)
	})
	// The scheduler used here spreads nothing by itself.
	t.Run("which they are not without the chart's word", func(t *testing.T) {
		byZone, byNode := place(t, r.unspread(ctx, t, 3))
		require.Len(t, byNode, 1, "%v %v", byZone, byNode)
	})
}

// unspread runs so many pods of delivery, but without its constraints, until each has a node.
func (r *release) unspread(ctx context.Context, t *testing.T, replicas int32) []core.Pod {
	t.Helper()
	deployments := cluster.Client.AppsV1().Deployments(r.namespace)
	deployment, err := deployments.Get(ctx, "runnel-delivery", meta.GetOptions{})
	require.NoError(t, err)
	loose := deployment.DeepCopy()
	loose.ObjectMeta = meta.ObjectMeta{Name: "loose"}
	loose.Spec.Template.Spec.TopologySpreadConstraints = nil
	own := map[string]string{"loose": "true"}
	loose.Spec.Template.Labels, loose.Spec.Selector.MatchLabels = own, own
	loose.Spec.Replicas = &replicas
	_, err = deployments.Create(ctx, loose, meta.CreateOptions{})
	require.NoError(t, err)
	var pods *core.PodList
	eventually(ctx, t, "the loose pods are placed", func(ctx context.Context) error {
		pods, err = cluster.Client.CoreV1().Pods(r.namespace).List(ctx, meta.ListOptions{LabelSelector: labels.SelectorFromSet(own).String()})
		if err != nil {
			return err
		}
		if len(pods.Items) < int(replicas) {
			return fmt.Errorf("%d of %d pods are there", len(pods.Items), replicas)
		}
		for _, pod := range pods.Items {
			if pod.Spec.NodeName == "" {
				return fmt.Errorf("%s has no node", pod.Name)
			}
		}
		return nil
	})
	return pods.Items
}

// place counts the pods that stay by zone and by node.
func place(t *testing.T, pods []core.Pod) (byZone, byNode map[string]int) {
	t.Helper()
	byZone, byNode = map[string]int{}, map[string]int{}
	for _, pod := range pods {
		if pod.DeletionTimestamp != nil {
			continue
		}
		require.NotEmpty(t, pod.Spec.NodeName, pod.Name)
		byNode[pod.Spec.NodeName]++
		byZone["zone-"+strings.TrimRight(pod.Spec.NodeName, "0123456789")]++
	}
	return byZone, byNode
}
