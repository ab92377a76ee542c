package k8stest

import (
	"bytes"
	"context"
	"maps"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
)

// strict sends documents to the API server as they were rendered. What `kubectl apply --validate=strict` would refuse, an
// unknown field or a key that occurs twice, is an error, and warnings are kept.
type strict struct {
	client   *rest.RESTClient
	mapper   meta.RESTMapper
	warnings []string // of the last call
}

func newStrict(t *testing.T) *strict {
	t.Helper()
	s := &strict{}
	config := rest.CopyConfig(cluster.Rest)
	config.WarningHandler = s
	config.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
	var err error
	s.client, err = rest.UnversionedRESTClientFor(config)
	require.NoError(t, err)
	groups, err := restmapper.GetAPIGroupResources(cluster.Client.Discovery())
	require.NoError(t, err)
	s.mapper = restmapper.NewDiscoveryRESTMapper(groups)
	return s
}

// HandleWarningHeader is called by the client during a call.
func (s *strict) HandleWarningHeader(code int, _, text string) {
	s.warnings = append(s.warnings, text)
}

// offer returns what the API server says to a new object, without storing it.
func (s *strict) offer(ctx context.Context, t *testing.T, d document) (warnings []string, err error) {
	t.Helper()
	return s.send(ctx, t, d, "All")
}

// create stores a new object.
func (s *strict) create(ctx context.Context, t *testing.T, d document) (warnings []string, err error) {
	t.Helper()
	return s.send(ctx, t, d)
}

func (s *strict) send(ctx context.Context, t *testing.T, d document, dryRun ...string) (warnings []string, err error) {
	t.Helper()
	kind := d.GroupVersionKind()
	mapping, err := s.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	require.NoError(t, err, "%s is not known here", kind)
	path := "/apis/" + kind.Group + "/" + kind.Version
	if kind.Group == "" {
		path = "/api/" + kind.Version
	}
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		path += "/namespaces/" + d.GetNamespace()
	}
	request := s.client.Verb(http.MethodPost).AbsPath(path, mapping.Resource.Resource).
		Param("fieldValidation", "Strict").SetHeader("Content-Type", "application/yaml").Body(d.text)
	for _, stage := range dryRun {
		request = request.Param("dryRun", stage)
	}
	s.warnings = nil
	err = request.Do(ctx).Error()
	return s.warnings, err
}

// The sets of values whose objects the API server must take, beside those in deploy/helm/variants.
var variants = map[string][]string{
	"defaults": nil,
	"trial":    {"--values", root("deploy", "helm", "values-trial.yaml")},
	"everything chosen": {
		"--set", "gateway.clientTLSSecret=chat-tls,gateway.allowedOrigins={https://chat.example.com}",
		"--set", "auth.jwksURL=https://issuer.example.com/jwks.json,auth.issuer=https://issuer.example.com,auth.audience=chat",
		"--set", "telemetry.otlpEndpoint=http://collector.observability:4317,admin.pprof=true",
		"--set", "image.pullSecrets={registry},topologySpread.whenUnsatisfiable=DoNotSchedule,ingress.className=nginx",
		"--set", "ingress.enabled=true,ingress.hosts[0].host=chat.example.com,gateway.autoscaling.enabled=true",
		"--set", "nats.storage.className=fast,gateway.nodeSelector.disk=fast,delivery.priorityClassName=high,history.extraEnv.TZ=UTC",
		"--set-json", `gateway.tolerations=[{"key":"chat","operator":"Exists"}]`,
		"--set-json", `networkPolicy.postgresTo=[{"ipBlock":{"cidr":"10.1.2.0/24"}}]`,
	},
	"the least": {
		"--set", "nats.enabled=false,nats.url=tls://nats.example.com:4222,nats.auth.enabled=false",
		"--set", "rpc.tls.enabled=false",
		"--set", "networkPolicy.enabled=false,podDisruptionBudgets.enabled=false",
	},
}

func TestStrictValidation(t *testing.T) {
	ctx := deadline(t)
	namespace := newNamespace(ctx, t)
	server := newStrict(t)
	all := maps.Clone(variants)
	files, err := filepath.Glob(root("deploy", "helm", "variants", "*.yaml"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		all[filepath.Base(file)] = []string{"--values", file}
	}
	// The pod of helm test runs as the account that every namespace gets a moment after it was made.
	eventually(ctx, t, "the namespace has its default account", func(ctx context.Context) error {
		_, err := cluster.Client.CoreV1().ServiceAccounts(namespace).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	for name, values := range all {
		t.Run("takes every object without a warning/"+name, func(t *testing.T) {
			for _, d := range render(ctx, t, namespace, values...) {
				warnings, err := server.offer(ctx, t, d)
				require.NoError(t, err, "%s %s", d.GetKind(), d.GetName())
				require.Empty(t, warnings, "%s %s", d.GetKind(), d.GetName())
			}
		})
	}
	whole := render(ctx, t, namespace, "--values", root("deploy", "helm", "variants", "ingress.yaml"),
		"--values", root("deploy", "helm", "variants", "autoscaling.yaml"))
	t.Run("warns of a name that is set twice", func(t *testing.T) {
		for _, d := range whole {
			if d.GetKind() != "Deployment" {
				continue
			}
			twice := bytes.ReplaceAll(d.text, []byte("RUNNEL_RPC_STOP_TIMEOUT"), []byte("RUNNEL_RPC_LISTEN"))
			warnings, err := server.offer(ctx, t, document{d.Unstructured, twice})
			require.NoError(t, err)
			require.Len(t, warnings, 1, "the API server takes it and warns, and no variant may cause a warning")
			require.Contains(t, warnings[0], "hides previous definition")
		}
	})
	t.Run("refuses doubled keys and unknown fields", func(t *testing.T) {
		for _, d := range whole {
			_, err := server.offer(ctx, t, document{d.Unstructured, append([]byte("kind: "+d.GetKind()+"\n"), d.text...)})
			require.ErrorContains(t, err, `key "kind" already set`, "%s %s", d.GetKind(), d.GetName())
			_, err = server.offer(ctx, t, document{d.Unstructured, append([]byte("kinds: true\n"), d.text...)})
			require.ErrorContains(t, err, `unknown field "kinds"`, "%s %s", d.GetKind(), d.GetName())
		}
	})
	for field, kind := range mistypable {
		t.Run("refuses a mistyped field/"+field, func(t *testing.T) {
			seen := false
			for _, d := range whole {
				mistyped := bytes.ReplaceAll(d.text, []byte(field+":"), []byte(field+"s:"))
				if d.GetKind() != kind || bytes.Equal(mistyped, d.text) {
					continue
				}
				seen = true
				_, err := server.offer(ctx, t, document{d.Unstructured, mistyped})
				require.ErrorContains(t, err, field+"s", "%s %s", d.GetKind(), d.GetName())
			}
			require.True(t, seen, "no %s has the field", kind)
		})
	}
	// A Deployment is stored whatever the API server thinks of its pods: a warning is all that it says, so it must be seen.
	t.Run("warns of pods that it would refuse", func(t *testing.T) {
		for _, d := range whole {
			if d.GetKind() != "Deployment" {
				continue
			}
			loose := bytes.ReplaceAll(d.text, []byte("runAsNonRoot: true"), nil)
			warnings, err := server.offer(ctx, t, document{d.Unstructured, loose})
			require.NoError(t, err)
			require.Len(t, warnings, 1)
			require.Contains(t, warnings[0], "would violate PodSecurity")
		}
	})
}

// mistypable are fields deep inside objects of a kind.
var mistypable = map[string]string{
	"failureThreshold":             "Deployment",
	"maxSkew":                      "Deployment",
	"volumeClaimTemplates":         "StatefulSet",
	"unhealthyPodEvictionPolicy":   "PodDisruptionBudget",
	"stabilizationWindowSeconds":   "HorizontalPodAutoscaler",
	"namespaceSelector":            "NetworkPolicy",
	"targetPort":                   "Service",
	"pathType":                     "Ingress",
	"automountServiceAccountToken": "ServiceAccount",
}
