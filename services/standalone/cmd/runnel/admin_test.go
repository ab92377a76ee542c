package main

import (
	"bytes"
	"context"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/require"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/client"
	"github.com/runnelhq/runnel/pkg/settings"
	"github.com/runnelhq/runnel/pkg/telemetry"
	"github.com/runnelhq/runnel/services/standalone"
	"github.com/runnelhq/runnel/services/standalone/admincli"
)

// operator runs commands as an operator at a terminal of the machine.
type operator struct {
	t       *testing.T
	address string
}

// run runs a command line and returns its output.
func (o operator) run(args ...string) (out string, err error) {
	o.t.Helper()
	var c cli
	var printed, errs bytes.Buffer
	parser, err := settings.New("runnel", "", &c, kong.Writers(&printed, &errs))
	require.NoError(o.t, err)
	command, err := parser.Parse(append([]string{"admin", "--address", o.address, "--timeout", "30s"}, args...))
	require.NoError(o.t, err)
	command.BindTo(o.t.Context(), (*context.Context)(nil))
	command.Bind(&admincli.Console{Out: &printed, Err: &errs, Now: time.Now})
	err = command.Run()
	return printed.String(), err
}

func (o operator) must(args ...string) string {
	o.t.Helper()
	out, err := o.run(args...)
	require.NoError(o.t, err, args)
	return out
}

func TestAnOperatorSeesAndSteersAStandalone(t *testing.T) {
	var cfg standalone.Config
	parser, err := settings.New("test", "", &cfg)
	require.NoError(t, err)
	_, err = parser.Parse(nil)
	require.NoError(t, err)
	cfg.DataDir = filepath.Join(t.TempDir(), "data")
	cfg.Gateway.Listen, cfg.RPC.Listen, cfg.Admin.Listen = "127.0.0.1:0", "127.0.0.1:0", ""
	cfg.NATS.Partitions = 2
	cfg.Delivery.Name = "worker-1"
	server, err := standalone.New(t.Context(), cfg, telemetry.Discard())
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Run(ctx) }()
	defer func() {
		stop()
		require.NoError(t, <-served)
	}()

	delivered := make(chan struct{}, 1)
	connect := func(user string, change func(*client.Config)) *client.Client {
		config := client.Config{
			URL: "ws://" + server.Addr().String() + "/v1/ws", DeviceID: user + "-phone", AckDelay: -1,
			Token: func(context.Context) (string, error) { return mint(cfg.Auth, cfg.DataDir, user, time.Hour) },
		}
		change(&config)
		c, err := client.New(config)
		require.NoError(t, err)
		require.NoError(t, c.Start(t.Context()))
		t.Cleanup(func() { _ = c.Close() })
		require.NoError(t, c.Ready(t.Context()))
		return c
	}
	alice := connect("alice", func(config *client.Config) {
		config.OnReceipt = func(receipt *conversationv1.Receipt) {
			if reached(receipt.GetDelivered(), 2) == 2 {
				select {
				case delivered <- struct{}{}:
				default:
				}
			}
		}
	})
	bob := connect("bob", func(*client.Config) {})
	id, err := alice.OpenDirect(t.Context(), "bob")
	require.NoError(t, err)
	_, err = alice.Send(t.Context(), id, "hello")
	require.NoError(t, err)
	<-delivered

	o := operator{t, server.RPCAddr()}
	var status string
	for !strings.Contains(status, "2 partitions, 2 running with no commands waiting; 0 commands waiting in total\nno dead letters\n") {
		status = o.must("status")
	}
	require.Regexp(t, `(?m)^gw-\S+ +2 +2 +1 `, status)
	worker := regexp.MustCompile(`(?m)^(worker-1-\S+) +2 +0 `).FindStringSubmatch(status)[1]
	list := o.must("connections", "list", "--gateway", "", "--user", "bob")
	require.Contains(t, list, " bob ")
	require.NotContains(t, list, "alice")
	connection := strings.Fields(strings.Split(list, "\n")[1])[0]
	require.Regexp(t, `(?m)^`+id+` +2 +2 +2 +0 +0 +0$`, o.must("connections", "inspect", connection))
	require.Contains(t, o.must("users", "sessions", "bob"), connection)

	require.Contains(t, o.must("conversations", "list", "--user", "bob"), id)
	require.Contains(t, o.must("conversations", "show", id), "owner         "+worker+"\n")
	require.Regexp(t, `(?m)^bob +1 +2 +0 +0 `, o.must("conversations", "members", id))
	require.Equal(t, id+": 2 events, 0 of them erased: no hole, every hash is correct\n", o.must("conversations", "verify", id))

	explained := o.must("explain", "--user", "bob", "--conversation", id, "--seq", "2")
	require.Regexp(t, `^ACKNOWLEDGED: `, explained)
	require.Contains(t, explained, connection)
	require.Regexp(t, `^NOT COMMITTED: `, o.must("explain", "--user", "bob", "--conversation", id, "--seq", "9"))
	require.Regexp(t, `^NOT MEMBER: `, o.must("explain", "--user", "carol", "--conversation", id, "--seq", "2"))
	require.Contains(t, o.must("explain", "--user", "bob", "--conversation", id, "--seq", "2", "--json"), `"verdict":"VERDICT_ACKNOWLEDGED"`)

	require.Equal(t, "partition 1 is on "+worker+"\n", o.must("partitions", "move", "1", worker))
	require.Regexp(t, `(?m)^1 +`+worker+` +`+worker+` `, o.must("partitions", "list"))
	require.Equal(t, "any worker may own partition 1\n", o.must("partitions", "move", "1", "--any"))
	require.Equal(t, "no dead letters\n", o.must("dead-letters", "list"))

	require.Equal(t, "closed 1 connection\n", o.must("connections", "disconnect", "--user", "alice", "--stay-away"))
	<-alice.Ended()
	require.Contains(t, o.must("users", "revoke", "bob"), "closed 1 connection; tokens issued at or before ")
	<-bob.Ended()
	var closed *client.ClosedError
	require.ErrorAs(t, bob.Err(), &closed)
	require.False(t, closed.Code.Reconnect(), closed.Code.String())
	require.Contains(t, o.must("users", "sessions", "bob"), "those issued at or before ")

	_, err = o.run("conversations", "show", "g00000000000000000000000000")
	require.ErrorContains(t, err, "no such conversation")
	require.Equal(t, admincli.ExitFailed, exitCode(err))
}
