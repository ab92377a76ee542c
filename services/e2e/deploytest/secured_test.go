package deploytest

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/client"
)

// testSecured runs the production installation on this machine, three NATS servers included, with certificates and nkeys as an operator
// would make them, and sends a message through it: the manifests' settings do not only exist, they work together.
func testSecured(t *testing.T, facts Facts) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	running, err := Run(ctx, decode(t, production(t)), facts)
	require.NoError(t, err)
	defer func() { require.NoError(t, running.Stop()) }()

	received := make(chan *conversationv1.Event, 16)
	connect := func(user string, onEvent func(context.Context, *conversationv1.Event)) *client.Client {
		secret, err := facts.Secrets("runnel-auth", "hmac-secret")
		require.NoError(t, err)
		c, err := client.New(client.Config{
			URL: "ws://" + running.Addresses[gateway]["gateway.listen"] + "/v1/ws", DeviceID: "laptop", OnEvent: onEvent,
			Token: func(context.Context) (string, error) {
				return auth.Mint([]byte(secret), user, time.Hour, time.Now(), "", "")
			},
		})
		require.NoError(t, err)
		require.NoError(t, c.Start(ctx))
		return c
	}
	bob := connect("bob", func(_ context.Context, event *conversationv1.Event) { received <- event })
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
