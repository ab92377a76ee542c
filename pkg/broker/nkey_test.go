package broker_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/broker"
)

// An operator replaces a service's NATS user: first in the seed file, then in the server's configuration. The service
// reconnects as the new user.
func TestAServiceBecomesAnotherNkeyUser(t *testing.T) {
	path := filepath.Join(t.TempDir(), "seed")
	newUser := func() *server.NkeyUser {
		pair, err := nkeys.CreateUser()
		require.NoError(t, err)
		public, err := pair.PublicKey()
		require.NoError(t, err)
		seed, err := pair.Seed()
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(path+".new", seed, 0o600))
		require.NoError(t, os.Rename(path+".new", path))
		return &server.NkeyUser{Nkey: public}
	}
	options := &server.Options{Host: "127.0.0.1", Port: -1, NoLog: true, NoSigs: true, Nkeys: []*server.NkeyUser{newUser()}}
	ns, err := server.NewServer(options)
	require.NoError(t, err)
	ns.Start()
	t.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
	require.True(t, ns.ReadyForConnections(30*time.Second))
	nc, err := broker.Connect(broker.Config{URL: ns.ClientURL(), NkeySeedFile: path}, "runnel-test", slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	require.NoError(t, nc.Flush())

	next := options.Clone()
	next.Nkeys = []*server.NkeyUser{newUser()}
	require.NoError(t, ns.ReloadOptions(next)) // closes the connection, because its user no longer exists
	require.Eventually(t, func() bool {
		list, err := ns.Connz(&server.ConnzOptions{Username: true})
		return err == nil && len(list.Conns) == 1 && list.Conns[0].AuthorizedUser == next.Nkeys[0].Nkey
	}, 30*time.Second, 10*time.Millisecond)
	require.NoError(t, nc.Flush())
}
