package k8stest

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPlainManifestsInstall does without Helm: every document of the file, in its order, is taken as it stands.
func TestPlainManifestsInstall(t *testing.T) {
	ctx := deadline(t)
	text, err := os.ReadFile(root("deploy", "manifests", "runnel.yaml"))
	require.NoError(t, err)
	r := &release{namespace: "runnel"}
	server := newStrict(t)
	for i, d := range documents(t, string(text)) {
		warnings, err := server.create(ctx, t, d)
		require.NoError(t, err, "%s %s", d.GetKind(), d.GetName())
		require.Empty(t, warnings, "%s %s", d.GetKind(), d.GetName())
		if i == 0 {
			require.Equal(t, "Namespace", d.GetKind())
			require.Equal(t, r.namespace, d.GetName())
			furnish(ctx, t, r.namespace)
		}
	}
	r.awaitReady(ctx, t)
}
