package k8stest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	discovery "k8s.io/api/discovery/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	resources "k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
)

func TestInstallServesAndUninstallLeavesOnlyData(t *testing.T) {
	ctx := deadline(t)
	r := &release{namespace: newNamespace(ctx, t)}
	before, err := r.objects(ctx)
	require.NoError(t, err)
	r.helm(ctx, t, "install", releaseName, chart(), "--wait", "--timeout", waitTimeout.String())
	r.awaitReady(ctx, t)
	installed, err := r.objects(ctx)
	require.NoError(t, err)
	require.Greater(t, len(installed), len(before)+20)

	t.Run("every service leads to every pod of its component", func(t *testing.T) {
		services, err := cluster.Client.CoreV1().Services(r.namespace).List(ctx, meta.ListOptions{})
		require.NoError(t, err)
		require.Len(t, services.Items, 5)
		for _, service := range services.Items {
			want := len(r.pods(ctx, t, service.Labels[componentLabel]))
			eventually(ctx, t, fmt.Sprintf("service %s leads to %d pods", service.Name, want), func(ctx context.Context) error {
				return leadsTo(ctx, r.namespace, service.Name, want, len(service.Spec.Ports))
			})
		}
	})
	t.Run("every NATS server has a volume of its own", func(t *testing.T) {
		claims, err := cluster.Client.CoreV1().PersistentVolumeClaims(r.namespace).List(ctx, meta.ListOptions{})
		require.NoError(t, err)
		volumes := map[string]bool{}
		for _, claim := range claims.Items {
			volumes[claim.Spec.VolumeName] = true
		}
		require.NotContains(t, volumes, "")
		require.Len(t, volumes, components["nats"])
	})

	r.helm(ctx, t, "uninstall", releaseName, "--wait", "--timeout", waitTimeout.String())
	var left []string
	eventually(ctx, t, "nothing but the claims of NATS is left", func(ctx context.Context) error {
		now, err := r.objects(ctx)
		if err != nil {
			return err
		}
		left = slices.DeleteFunc(now, func(object string) bool { return slices.Contains(before, object) })
		for _, object := range left {
			if !strings.HasPrefix(object, "persistentvolumeclaims data-runnel-nats-") {
				return fmt.Errorf("left: %s", strings.Join(left, ", "))
			}
		}
		return nil
	})
	require.Len(t, left, components["nats"], "the data of NATS must survive until somebody deletes it")
}

// leadsTo checks that the endpoints of a service are so many ready pods, with an address for each of its ports.
func leadsTo(ctx context.Context, namespace, service string, pods, ports int) error {
	slices, err := cluster.Client.DiscoveryV1().EndpointSlices(namespace).List(ctx, meta.ListOptions{LabelSelector: discovery.LabelServiceName + "=" + service})
	if err != nil {
		return err
	}
	ready := 0
	for _, slice := range slices.Items {
		if len(slice.Ports) != ports {
			return fmt.Errorf("%d of %d ports are there", len(slice.Ports), ports)
		}
		for _, endpoint := range slice.Endpoints {
			if endpoint.Conditions.Ready != nil && *endpoint.Conditions.Ready {
				ready++
			}
		}
	}
	if ready != pods {
		return fmt.Errorf("%d of %d pods are ready there", ready, pods)
	}
	return nil
}

// objects are all in the namespace and all that are in none, as "resource name", except what comes and goes by itself.
func (r *release) objects(ctx context.Context) ([]string, error) {
	config := rest.CopyConfig(cluster.Rest)
	config.WarningHandler = rest.NoWarnings{} // all kinds are listed, deprecated ones too
	client, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	_, lists, err := cluster.Client.Discovery().ServerGroupsAndResources()
	if err != nil {
		return nil, err
	}
	var all []string
	for _, list := range resources.FilteredBy(resources.SupportsAllVerbs{Verbs: []string{"list", "delete"}}, lists) {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return nil, err
		}
		for _, kind := range list.APIResources {
			if kind.Name == "events" || kind.Name == "leases" {
				continue
			}
			namespace := r.namespace
			if !kind.Namespaced {
				namespace = ""
			}
			found, err := client.Resource(version.WithResource(kind.Name)).Namespace(namespace).List(ctx, meta.ListOptions{})
			if err != nil {
				return nil, fmt.Errorf("list %s: %w", kind.Name, err)
			}
			for _, object := range found.Items {
				all = append(all, kind.Name+" "+object.Name)
			}
		}
	}
	return all, nil
}
