package gateway

import (
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/bus"
	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/protocol"

	"github.com/runnelhq/runnel/services/gateway/gatewaytest"
	"github.com/runnelhq/runnel/services/gateway/metrics"
)

// client is a client of ann's that is connected.
type client struct {
	*stranger
}

func newClient(t *testing.T, address string) client {
	t.Helper()
	s := newStranger(t, address)
	s.connect(minted(t, secret, time.Now(), time.Hour), "d")
	f, err := s.next()
	require.NoError(t, err)
	require.NotNil(t, f.GetConnected(), "%v", f)
	return client{s}
}

// create is the command that creates a conversation.
func create(n int, body *conversationv1.Body) *clientv1.ClientFrame {
	return &clientv1.ClientFrame{Request: &clientv1.ClientFrame_Submit{Submit: &clientv1.Submit{
		CommandId: fmt.Sprintf("0192f3c0-0000-7000-8000-%012x", n), Body: body,
	}}}
}

func group(members ...string) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_Create{Create: &conversationv1.Create{
		Kind: conversationv1.Kind_KIND_GROUP, Members: members,
	}}}
}

func members() *clientv1.ClientFrame {
	return &clientv1.ClientFrame{Request: &clientv1.ClientFrame_ListMembers{ListMembers: &clientv1.ListMembers{ConversationId: gatewaytest.GroupID}}}
}

// requireTurnedAway requires that a handshake is refused with a status, and with the time after which to come back.
func requireTurnedAway(t *testing.T, address string, status int, header http.Header) {
	t.Helper()
	dialer := websocket.Dialer{Subprotocols: []string{frame.JSON.Subprotocol()}}
	_, response, err := dialer.DialContext(t.Context(), address, header)
	require.ErrorIs(t, err, websocket.ErrBadHandshake)
	_ = response.Body.Close()
	require.Equal(t, status, response.StatusCode)
	after, err := strconv.Atoi(response.Header.Get("Retry-After"))
	require.NoError(t, err)
	require.Positive(t, after)
}

// full has a client connect, and requires that the next one is turned away.
func full(status int) func(t *testing.T, address string) {
	return func(t *testing.T, address string) {
		t.Helper()
		newClient(t, address)
		requireTurnedAway(t, address, status, nil)
	}
}

// crowded does the same with addresses of one IPv6 network.
func crowded(t *testing.T, address string) {
	t.Helper()
	from := func(ip string) http.Header { return http.Header{"X-Forwarded-For": {ip}} }
	dialer := websocket.Dialer{Subprotocols: []string{frame.JSON.Subprotocol()}}
	conn, response, err := dialer.DialContext(t.Context(), address, from("2001:db8:1:1::1"))
	require.NoError(t, err)
	_ = response.Body.Close()
	t.Cleanup(func() { _ = conn.Close() })
	requireTurnedAway(t, address, http.StatusTooManyRequests, from("2001:db8:1:2::1"))
}

// refused has a connected client make requests, the last of which is refused with a code. Commands before it get no outcome, and
// other requests are answered first.
func refused(code conversationv1.ErrorCode, requests ...*clientv1.ClientFrame) func(t *testing.T, address string) {
	return func(t *testing.T, address string) {
		t.Helper()
		c := newClient(t, address)
		for i, request := range requests {
			request.Id = uint64(100 + i)
			c.text(string(frame.AppendClient(nil, frame.JSON, request)))
			last := i == len(requests)-1
			if !last && request.GetSubmit() != nil {
				continue
			}
			answer, err := c.next()
			require.NoError(t, err)
			require.Equal(t, request.GetId(), answer.GetId(), "%v", answer)
			if last {
				require.Equal(t, code, answer.GetError().GetCode(), "%v", answer)
			} else {
				require.Nil(t, answer.GetError())
			}
		}
	}
}

// silentBroker is a NATS server that answers no command.
func silentBroker(t *testing.T) *nats.Conn {
	t.Helper()
	ns, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true})
	require.NoError(t, err)
	ns.Start()
	require.True(t, ns.ReadyForConnections(patience))
	nc, err := broker.Connect(broker.Config{}, "test", slog.New(slog.DiscardHandler), prometheus.NewRegistry(), nats.InProcessServer(ns))
	require.NoError(t, err)
	t.Cleanup(func() {
		nc.Close()
		ns.Shutdown()
		ns.WaitForShutdown()
	})
	return nc
}

// Each limit follows its setting: what is above it is refused, and counted under the name of the setting.
func TestEveryLimitFollowsItsSetting(t *testing.T) {
	const rateLimited, limit = conversationv1.ErrorCode_ERROR_CODE_RATE_LIMITED, conversationv1.ErrorCode_ERROR_CODE_LIMIT
	many := make([]string, protocol.MaxMembers-1)
	for i := range many {
		many[i] = "member-" + strconv.Itoa(i)
	}
	nc, tested := silentBroker(t), map[metrics.Limit]bool{}
	for setting, c := range map[string]struct {
		limit   metrics.Limit
		further string // another setting that the test needs
		play    func(t *testing.T, address string)
	}{
		"max-connections=1":             {metrics.LimitConnections, "", full(http.StatusServiceUnavailable)},
		"connect-rate=0.1":              {metrics.LimitConnectRate, "", full(http.StatusServiceUnavailable)},
		"max-connections-per-ip=1":      {metrics.LimitIPConnections, "", full(http.StatusTooManyRequests)},
		"connect-rate-per-ip=0.1":       {metrics.LimitIPConnectRate, "", full(http.StatusTooManyRequests)},
		"max-connections-per-network=1": {metrics.LimitNetworkConnections, "trusted-proxies=1", crowded},
		"connect-rate-per-network=0.1":  {metrics.LimitNetworkConnectRate, "trusted-proxies=1", crowded},
		"max-unauthenticated-bytes=" + strconv.Itoa(protocol.MaxConnectBytes): {metrics.LimitUnauthenticatedBytes, "", func(t *testing.T, address string) {
			t.Helper()
			for range 2 { // all but the end of a first message
				w, err := newStranger(t, address).NextWriter(websocket.TextMessage)
				require.NoError(t, err)
				_, err = w.Write([]byte(strings.Repeat(" ", protocol.MaxConnectBytes*3/4)))
				require.NoError(t, err)
			}
		}},
		"max-connections-per-user=1": {metrics.LimitUserConnections, "", func(t *testing.T, address string) {
			t.Helper()
			newClient(t, address)
			again := newStranger(t, address)
			again.connect(minted(t, secret, time.Now(), time.Hour), "d")
			f, err := again.next()
			require.NoError(t, err)
			require.Equal(t, limit, f.GetError().GetCode())
			require.Equal(t, errcode.CloseOverloaded, again.closed())
		}},
		"max-frame-bytes=" + strconv.Itoa(2*protocol.MaxFrameBytes): {metrics.LimitFrameBytes, "", func(t *testing.T, address string) {
			t.Helper()
			c := newClient(t, address)
			c.text(`{"id":"5","listConversations":{}}` + strings.Repeat(" ", protocol.MaxFrameBytes))
			answer, err := c.next()
			require.NoError(t, err)
			require.Equal(t, uint64(5), answer.GetId(), "larger than the default allows")
			c.text(strings.Repeat(" ", 2*protocol.MaxFrameBytes+1))
			require.Equal(t, errcode.CloseTooLarge, c.closed())
		}},
		"frame-rate=0.1":                 {metrics.LimitFrameRate, "", refused(rateLimited, members())},
		"read-rate-per-user=0.2":         {metrics.LimitReadRate, "", refused(rateLimited, members(), members())}, // a burst of two: the connect is the first
		"command-rate-per-user=0.1":      {metrics.LimitCommandRate, "", refused(rateLimited, create(1, group()), create(2, group()))},
		"add-rate-per-user=0.1":          {metrics.LimitAddRate, "", refused(rateLimited, create(1, group(many...)), create(2, group("bob")))},
		"max-conversations-per-user=100": {metrics.LimitConversations, "", refused(limit, create(1, group("bob")))},
	} {
		tested[c.limit] = true
		name, _, _ := strings.Cut(setting, "=")
		t.Run(name, func(t *testing.T) {
			settings := []string{"--max-connections=10", "--" + setting}
			if c.further != "" {
				settings = append(settings, "--"+c.further)
			}
			store := &gatewaytest.Store{Partitions: 4, Level: 1, Counts: []*historyv1.MembershipCount{{UserId: "bob", Conversations: 100}}}
			g, address := doorway(t, store, settings...)
			submitter, err := broker.NewSubmitter(nc, bus.OverNATS{Conn: nc}, 4, broker.GatewayInbox(g.id), broker.SubmitterConfig{}, g.log)
			require.NoError(t, err)
			defer submitter.Close()
			g.submitter.Store(submitter)
			c.play(t, address)
			require.Eventually(t, func() bool { return testutil.ToFloat64(g.metrics.Limits[c.limit]) == 1 }, patience, time.Millisecond)
			for other := range g.metrics.Limits {
				if metrics.Limit(other) != c.limit {
					require.InDelta(t, 0, testutil.ToFloat64(g.metrics.Limits[other]), 0, "no other limit")
				}
			}
		})
	}
	for other := range (&metrics.Metrics{}).Limits {
		switch metrics.Limit(other) {
		case metrics.LimitCommands, metrics.LimitSendQueue: // end to end, in services/e2e: they need a broker and a full socket
		case metrics.LimitCalls: // has no setting; see the session's tests
		default:
			require.True(t, tested[metrics.Limit(other)], "limit %d is missing from this test", other)
		}
	}
}
