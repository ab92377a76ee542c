package k8stest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// definitions are the files that define what the chart may make beyond Kubernetes' own kinds, by the module (crds/go.mod
// has its version) whose release they are part of.
var definitions = map[string][]string{
	"github.com/prometheus-operator/prometheus-operator": {
		"example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
		"example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
	},
	"github.com/cert-manager/cert-manager": {"deploy/crds/cert-manager.io_certificates.yaml"},
}

// TestObjectsForOperatorsFitTheirDefinitions offers what the Prometheus operator and cert-manager are to find to an API
// server that knows the operators' own definitions. Nobody acts on the objects here.
func TestObjectsForOperatorsFitTheirDefinitions(t *testing.T) {
	ctx := deadline(t)
	namespace := newNamespace(ctx, t)
	server := newStrict(t)
	for module, files := range definitions {
		dir := moduleDir(ctx, t, module)
		for _, file := range files {
			text, err := os.ReadFile(filepath.Join(dir, file))
			require.NoError(t, err)
			for _, definition := range documents(t, string(text)) {
				_, err := server.create(ctx, t, definition)
				require.NoError(t, err, file)
				awaitDefinition(ctx, t, definition.GetName())
			}
		}
	}
	server = newStrict(t) // knows the new kinds

	kinds := map[string]int{}
	for _, d := range render(ctx, t, namespace, "--set",
		"certManager.enabled=true,monitoring.serviceMonitor.enabled=true,monitoring.prometheusRule.enabled=true") {
		switch d.GetKind() {
		case "ServiceMonitor", "PrometheusRule", "Certificate":
		default:
			continue
		}
		kinds[d.GetKind()]++
		warnings, err := server.offer(ctx, t, d)
		require.NoError(t, err, "%s %s", d.GetKind(), d.GetName())
		require.Empty(t, warnings, "%s %s", d.GetKind(), d.GetName())

		mistyped := document{d.Unstructured, bytes.Replace(d.text, []byte("\nspec:\n"), []byte("\nspec:\n  runnelUnknown: true\n"), 1)}
		_, err = server.offer(ctx, t, mistyped)
		require.ErrorContains(t, err, "runnelUnknown", "%s %s", d.GetKind(), d.GetName())
	}
	require.Len(t, kinds, 3, "%v", kinds)
}

// moduleDir is where the files of a module of crds/go.mod are; it is downloaded if it is not there.
func moduleDir(ctx context.Context, t *testing.T, module string) string {
	t.Helper()
	command := exec.CommandContext(ctx, "go", "mod", "download", "-json", module)
	command.Dir, command.Env = "crds", append(os.Environ(), "GOWORK=off")
	output, err := command.Output()
	require.NoError(t, err, "download %s: %s", module, output)
	var downloaded struct {
		Dir string `json:"Dir"` //nolint:tagliatelle // the go command's name
	}
	require.NoError(t, json.Unmarshal(output, &downloaded))
	return downloaded.Dir
}

// awaitDefinition waits until the API server serves a new kind.
func awaitDefinition(ctx context.Context, t *testing.T, name string) {
	t.Helper()
	path := "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/" + name
	eventually(ctx, t, name+" is served", func(ctx context.Context) error {
		text, err := cluster.Client.Discovery().RESTClient().Get().AbsPath(path).DoRaw(ctx)
		if err != nil {
			return err
		}
		var definition unstructured.Unstructured
		if err := json.Unmarshal(text, &definition.Object); err != nil {
			return err
		}
		conditions, _, err := unstructured.NestedSlice(definition.Object, "status", "conditions")
		for _, condition := range conditions {
			if is, ok := condition.(map[string]any); ok && is["type"] == "Established" && is["status"] == "True" {
				return nil
			}
		}
		return errors.Join(errors.New("it is not established"), err)
	})
}
