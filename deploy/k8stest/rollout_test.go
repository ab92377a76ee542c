package k8stest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	apps "k8s.io/api/apps/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// replaced are the components whose image the release brings; NATS has one of its own.
var replaced = []string{"gateway", "delivery", "history"}

func TestRolloutNeverServesWithFewer(t *testing.T) {
	ctx := deadline(t)
	r := install(ctx, t)
	followed := r.follow(ctx, t)

	r.upgrade(ctx, t, "--set", "image.tag=next")
	r.awaitImage(ctx, t, ":next")
	for _, component := range replaced {
		require.Equal(t, components[component], followed.fewest(t)[component], "%s during a rollout", component)
	}

	t.Run("nor when the new image never gets ready", func(t *testing.T) {
		r.upgrade(ctx, t, "--set", "image.tag=never-ready")
		for _, component := range replaced {
			eventually(ctx, t, "a new pod of "+component+" has a node and is not ready", func(ctx context.Context) error {
				for _, pod := range r.pods(ctx, t, component) {
					if strings.HasSuffix(pod.Spec.Containers[0].Image, ":never-ready") && pod.Spec.NodeName != "" {
						return nil
					}
				}
				return errors.New("there is none")
			})
		}
		r.helm(ctx, t, "rollback", releaseName)
		r.awaitImage(ctx, t, ":next")
		for _, component := range replaced {
			require.Equal(t, components[component], followed.fewest(t)[component], "%s during a rollout that was taken back", component)
		}
	})

	t.Run("NATS goes one server at a time", func(t *testing.T) {
		r.upgrade(ctx, t, "--set-string", "nats.podAnnotations.roll=1")
		eventually(ctx, t, "every NATS server is a new one", func(ctx context.Context) error {
			for _, pod := range r.pods(ctx, t, "nats") {
				if pod.Annotations["roll"] == "" || !serves(&pod) {
					return fmt.Errorf("%s is not", pod.Name)
				}
			}
			return nil
		})
		require.Equal(t, components["nats"]-1, followed.fewest(t)["nats"])
	})

	// The last part shows that what was followed above would have been noticed.
	t.Run("a Deployment that may take its pods away is noticed", func(t *testing.T) {
		patch := `{"spec":{"strategy":{"type":"Recreate","rollingUpdate":null},"template":{"metadata":{"annotations":{"roll":"1"}}}}}`
		_, err := cluster.Client.AppsV1().Deployments(r.namespace).
			Patch(ctx, "runnel-delivery", types.StrategicMergePatchType, []byte(patch), meta.PatchOptions{})
		require.NoError(t, err)
		r.awaitImage(ctx, t, ":next")
		require.Zero(t, followed.fewest(t)["delivery"])
	})
}

// awaitImage waits until every Deployment has finished rolling out, and to that image.
func (r *release) awaitImage(ctx context.Context, t *testing.T, suffix string) {
	t.Helper()
	eventually(ctx, t, "everything runs "+suffix, func(ctx context.Context) error {
		deployments, err := cluster.Client.AppsV1().Deployments(r.namespace).List(ctx, meta.ListOptions{})
		if err != nil {
			return err
		}
		for i := range deployments.Items {
			d := &deployments.Items[i]
			if !strings.HasSuffix(d.Spec.Template.Spec.Containers[0].Image, suffix) || !rolledOut(d) {
				return fmt.Errorf("%s: %d of %d pods are new, %d in all", d.Name, d.Status.UpdatedReplicas, *d.Spec.Replicas, d.Status.Replicas)
			}
		}
		return nil
	})
}

// rolledOut is what `kubectl rollout status` waits for.
func rolledOut(d *apps.Deployment) bool {
	want := *d.Spec.Replicas
	return d.Status.ObservedGeneration >= d.Generation &&
		d.Status.UpdatedReplicas == want && d.Status.Replicas == want && d.Status.AvailableReplicas == want
}
