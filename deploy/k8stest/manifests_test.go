package k8stest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestPlainManifestsInstall does without Helm what deploy/README.md says: every document of the files, in its order, is
// taken as it stands, and so are the Secrets that it wants.
func TestPlainManifestsInstall(t *testing.T) {
	ctx := deadline(t)
	var all []document
	for _, name := range []string{"runnel.yaml", "ingress.yaml"} {
		text, err := os.ReadFile(root("deploy", "manifests", name))
		require.NoError(t, err)
		all = append(all, documents(t, string(text))...)
	}
	r := &release{namespace: "runnel"}
	server := newStrict(t)
	create := func(d document) {
		warnings, err := server.create(ctx, t, d)
		require.NoError(t, err, "%s %s", d.GetKind(), d.GetName())
		require.Empty(t, warnings, "%s %s", d.GetKind(), d.GetName())
	}
	require.Equal(t, "Namespace "+r.namespace, all[0].GetKind()+" "+all[0].GetName())
	create(all[0])
	furnish(ctx, t, r.namespace)
	for _, secret := range operatorsSecrets(ctx, t) {
		secret.SetNamespace(r.namespace) // as `kubectl apply --namespace` does
		create(secret)
	}
	for _, d := range all[1:] {
		create(d)
	}
	r.awaitReady(ctx, t)

	// A kubelet would keep a pod waiting for what is missing; kwok does not look.
	for name, keys := range r.secretsOfPods(ctx, t) {
		secret, err := cluster.Client.CoreV1().Secrets(r.namespace).Get(ctx, name, meta.GetOptions{})
		require.NoError(t, err)
		for key := range keys {
			require.NotEmpty(t, secret.Data[key], "key %s of Secret %s", key, name)
		}
	}
}

// operatorsSecrets makes what an operator makes before: keys and certificates, and Secrets of them.
func operatorsSecrets(ctx context.Context, t *testing.T) []document {
	t.Helper()
	keys := filepath.Join(t.TempDir(), "keys")
	certs := exec.CommandContext(ctx, "go", "run", "./services/e2e/cmd/certs", "--dir", keys,
		"--host", "runnel-nats", "--host", "*.runnel-nats", "--host", "chat.example.com")
	certs.Dir, certs.Env = root(), append(os.Environ(), "GOWORK=")
	output, err := certs.CombinedOutput()
	require.NoError(t, err, "%s", output)
	secrets := exec.CommandContext(ctx, root("deploy", "kubernetes-secrets.sh"), keys)
	secrets.Env = append(os.Environ(), "DATABASE_URL=postgres://runnel:password@postgres.example.com/runnel")
	text, err := secrets.Output()
	require.NoError(t, err)
	return documents(t, string(text))
}

// secretsOfPods are the Secrets that the pods name, with the keys they take of each.
func (r *release) secretsOfPods(ctx context.Context, t *testing.T) map[string]map[string]bool {
	t.Helper()
	named := map[string]map[string]bool{}
	note := func(secret string, key ...string) {
		if named[secret] == nil {
			named[secret] = map[string]bool{}
		}
		for _, k := range key {
			named[secret][k] = true
		}
	}
	for component := range components {
		for _, pod := range r.pods(ctx, t, component) {
			for _, volume := range pod.Spec.Volumes {
				if volume.Secret == nil {
					continue
				}
				note(volume.Secret.SecretName)
				for _, item := range volume.Secret.Items {
					note(volume.Secret.SecretName, item.Key)
				}
			}
			for _, variable := range pod.Spec.Containers[0].Env {
				if from := variable.ValueFrom; from != nil && from.SecretKeyRef != nil {
					note(from.SecretKeyRef.Name, from.SecretKeyRef.Key)
				}
			}
		}
	}
	require.NotEmpty(t, named)
	return named
}
