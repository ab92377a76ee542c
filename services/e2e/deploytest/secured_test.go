package deploytest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/client"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/e2e/devkeys"
)

// operatorsSecrets follows deploy/README.md: certificates and nkeys by services/e2e/cmd/certs, Secrets by kubernetes-secrets.sh.
func operatorsSecrets(t *testing.T) Secrets {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "keys")
	_, err := devkeys.Make(dir, []string{"runnel-nats", "*.runnel-nats", "chat.example.com", "127.0.0.1"}, time.Hour)
	require.NoError(t, err)
	command := exec.CommandContext(t.Context(), deployDir+"/kubernetes-secrets.sh", dir)
	command.Env = append(os.Environ(), "DATABASE_URL=postgres://runnel:password@postgres.example.com/runnel")
	text, err := command.Output()
	require.NoError(t, err)
	made := map[string]map[string][]byte{}
	for document := range strings.SplitSeq(string(text), "---\n") {
		var secret corev1.Secret
		require.NoError(t, yaml.UnmarshalStrict([]byte(document), &secret))
		made[secret.Name] = secret.Data
	}
	return func(secret, key string) (string, error) {
		content, there := made[secret][key]
		if !there {
			return "", fmt.Errorf("kubernetes-secrets.sh does not make the key %s of the Secret %s", key, secret)
		}
		return string(content), nil
	}
}

// testSecured runs the production installation on this machine, including three NATS servers, with the Secrets that an
// operator makes, and sends a message through it: this proves that the manifests' settings work together.
func testSecured(t *testing.T, facts Facts) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	facts.Secrets = operatorsSecrets(t)
	installation := decode(t, production(t))
	for _, ingress := range installation.Ingresses {
		for _, secured := range ingress.Spec.TLS {
			_, err := facts.Secrets(secured.SecretName, "tls.crt")
			require.NoError(t, err)
		}
	}
	running, err := Run(ctx, installation, facts)
	require.NoError(t, err)
	defer func() { require.NoError(t, running.Stop()) }()

	received := make(chan client.Event, 16)
	connect := func(user string, onEvent func(context.Context, client.Event)) *client.Client {
		secret, err := facts.Secrets("runnel-auth", "hmac-secret")
		require.NoError(t, err)
		c, err := client.New(client.Config{
			URL: "ws://" + running.Addresses[gateway]["gateway.listen"] + "/v1/ws", DeviceID: "laptop", OnEvent: onEvent,
			Token: func(context.Context) (string, error) {
				return auth.Mint([]byte(secret), ids.User(user), time.Hour, time.Now(), "", "")
			},
		})
		require.NoError(t, err)
		require.NoError(t, c.Start(ctx))
		return c
	}
	bob := connect("bob", func(_ context.Context, event client.Event) { received <- event })
	defer func() { require.NoError(t, bob.Close()) }()
	require.NoError(t, bob.Ready(ctx))
	alice := connect("alice", nil)
	defer func() { require.NoError(t, alice.Close()) }()
	id, err := alice.OpenDirect(ctx, "bob")
	require.NoError(t, err)
	outcome, err := alice.Send(ctx, id, "hello")
	require.NoError(t, err)
	require.EqualValues(t, 2, outcome.GetSeq())
	for {
		select {
		case event := <-received:
			if event.GetSeq() == outcome.GetSeq() {
				require.Equal(t, "alice", event.GetSender())
				return
			}
		case <-ctx.Done():
			require.Fail(t, "bob was not told")
		}
	}
}
