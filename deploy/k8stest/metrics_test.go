package k8stest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	registration "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	aggregator "k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset"
	custom "k8s.io/metrics/pkg/apis/custom_metrics/v1beta2"
	usage "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/runnelhq/runnel/deploy/k8stest/controlplane"
)

const connectionsMetric = "runnel_gateway_connections"

// metricsServer stands in for the metrics server and for the adapter that makes Prometheus's figures the API
// custom.metrics.k8s.io. The API server calls it as it would call those. The figures are the test's: so many connections,
// which the pods share evenly, and pods that are idle.
type metricsServer struct {
	connections atomic.Int64
}

// startMetricsServer serves both APIs until the test ends.
func startMetricsServer(ctx context.Context, t *testing.T) *metricsServer {
	t.Helper()
	const name, namespace = "metrics", "kube-system"
	m := &metricsServer{}
	authority, err := controlplane.NewAuthority("k8stest-metrics")
	require.NoError(t, err)
	pair, err := authority.Issue(pkix.Name{CommonName: name}, name+"."+namespace+".svc")
	require.NoError(t, err)
	certificate, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	require.NoError(t, err)
	callers := x509.NewCertPool()
	require.True(t, callers.AppendCertsFromPEM(cluster.FrontProxy.PEM))
	server := httptest.NewUnstartedServer(m.routes())
	server.TLS = &tls.Config{
		Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: callers, MinVersion: tls.VersionTLS13,
	}
	server.StartTLS()
	t.Cleanup(server.Close)

	// A Service leads out of a cluster by a name only: a loopback address may be no endpoint.
	host, portText, err := net.SplitHostPort(server.Listener.Addr().String())
	require.NoError(t, err)
	parsed, err := strconv.ParseInt(portText, 10, 32)
	require.NoError(t, err)
	port := int32(parsed)
	services := cluster.Client.CoreV1().Services(namespace)
	_, err = services.Create(ctx, &core.Service{
		ObjectMeta: meta.ObjectMeta{Name: name},
		Spec:       core.ServiceSpec{Type: core.ServiceTypeExternalName, ExternalName: host},
	}, meta.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, services.Delete(context.WithoutCancel(ctx), name, meta.DeleteOptions{}))
	})
	client, err := aggregator.NewForConfig(cluster.Rest)
	require.NoError(t, err)
	registered := client.ApiregistrationV1().APIServices()
	for _, api := range []schema.GroupVersion{custom.SchemeGroupVersion, usage.SchemeGroupVersion} {
		service := &registration.APIService{
			ObjectMeta: meta.ObjectMeta{Name: api.Version + "." + api.Group},
			Spec: registration.APIServiceSpec{
				Service: &registration.ServiceReference{Namespace: namespace, Name: name, Port: &port},
				Group:   api.Group, Version: api.Version, CABundle: authority.PEM, GroupPriorityMinimum: 100, VersionPriority: 100,
			},
		}
		_, err := registered.Create(ctx, service, meta.CreateOptions{})
		require.NoError(t, err)
		t.Cleanup(func() {
			require.NoError(t, registered.Delete(context.WithoutCancel(ctx), service.Name, meta.DeleteOptions{}))
		})
	}
	return m
}

func (m *metricsServer) routes() http.Handler {
	routes := http.NewServeMux()
	customRoot, usageRoot := "GET /apis/"+custom.SchemeGroupVersion.String(), "GET /apis/"+usage.SchemeGroupVersion.String()
	routes.HandleFunc(customRoot, answer(func(*http.Request) (any, error) {
		return discoverable(custom.SchemeGroupVersion, "pods/"+connectionsMetric, "MetricValueList", "get"), nil
	}))
	routes.HandleFunc(usageRoot, answer(func(*http.Request) (any, error) {
		return discoverable(usage.SchemeGroupVersion, "pods", "PodMetrics", "list"), nil
	}))
	routes.HandleFunc(customRoot+"/namespaces/{namespace}/pods/{pods}/"+connectionsMetric, answer(m.connectionsOf))
	routes.HandleFunc(usageRoot+"/namespaces/{namespace}/pods", answer(usageOf))
	return routes
}

// discoverable is how an API tells of its one resource.
func discoverable(version schema.GroupVersion, name, kind, verb string) meta.APIResourceList {
	return meta.APIResourceList{
		TypeMeta: meta.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: version.String(),
		APIResources: []meta.APIResource{{Name: name, Namespaced: true, Kind: kind, Verbs: meta.Verbs{verb}}},
	}
}

// connectionsOf shares the connections between the pods that are asked for.
func (m *metricsServer) connectionsOf(r *http.Request) (any, error) {
	pods, err := asked(r)
	if err != nil {
		return nil, err
	}
	list := custom.MetricValueList{TypeMeta: meta.TypeMeta{Kind: "MetricValueList", APIVersion: custom.SchemeGroupVersion.String()}}
	for _, pod := range pods {
		list.Items = append(list.Items, custom.MetricValue{
			DescribedObject: core.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, APIVersion: "v1"},
			Metric:          custom.MetricIdentifier{Name: connectionsMetric},
			Timestamp:       meta.Now(),
			Value:           *resource.NewQuantity(m.connections.Load()/int64(len(pods)), resource.DecimalSI),
		})
	}
	return list, nil
}

// usageOf says that the pods that are asked for do next to nothing.
func usageOf(r *http.Request) (any, error) {
	pods, err := asked(r)
	if err != nil {
		return nil, err
	}
	list := usage.PodMetricsList{TypeMeta: meta.TypeMeta{Kind: "PodMetricsList", APIVersion: usage.SchemeGroupVersion.String()}}
	idle := core.ResourceList{core.ResourceCPU: resource.MustParse("5m"), core.ResourceMemory: resource.MustParse("50Mi")}
	for _, pod := range pods {
		metrics := usage.PodMetrics{ObjectMeta: meta.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace, Labels: pod.Labels}, Timestamp: meta.Now()}
		for _, container := range pod.Spec.Containers {
			metrics.Containers = append(metrics.Containers, usage.ContainerMetrics{Name: container.Name, Usage: idle})
		}
		list.Items = append(list.Items, metrics)
	}
	return list, nil
}

// asked are the serving pods that a question about metrics is about.
func asked(r *http.Request) ([]core.Pod, error) {
	list, err := cluster.Client.CoreV1().Pods(r.PathValue("namespace")).
		List(r.Context(), meta.ListOptions{LabelSelector: r.URL.Query().Get("labelSelector")})
	if err != nil {
		return nil, fmt.Errorf("list the pods that are asked for: %w", err)
	}
	var pods []core.Pod
	for i := range list.Items {
		if serves(&list.Items[i]) {
			pods = append(pods, list.Items[i])
		}
	}
	return pods, nil
}

func answer(find func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := find(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(body) // whoever asked may be gone
	}
}
