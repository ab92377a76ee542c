package gateway

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/telemetry/telemetrytest"

	"github.com/runnelhq/runnel/services/gateway/gatewaytest"
	"github.com/runnelhq/runnel/services/gateway/metrics"
)

const patience = 30 * time.Second

// doorway is a gateway that accepts connections, one at a time unless the settings say otherwise, and the address of its endpoint.
// Run is not called.
func doorway(t *testing.T, store *gatewaytest.Store, settings ...string) (g *Gateway, address string) {
	t.Helper()
	g = newGateway(t, nil, store, append([]string{"--max-connections=1"}, settings...)...)
	require.NoError(t, g.installation.agree(t.Context()))
	server := httptest.NewServer(g.server.Handler)
	t.Cleanup(func() {
		for _, s := range g.sessions.Close() {
			s.GoAway(0)
		}
		server.Close()
		g.cancel()
		g.websockets.WaitForReaders()
		g.sessions.Wait()
		g.rooms.Wait()
		g.outboxes.Writers.Wait()
	})
	return g, "ws" + strings.TrimPrefix(server.URL, "http") + Path
}

// dial connects, and returns the HTTP status of the handshake.
func dial(t *testing.T, address string, subprotocols ...string) (*websocket.Conn, int) {
	t.Helper()
	dialer := websocket.Dialer{Subprotocols: subprotocols}
	conn, response, err := dialer.DialContext(t.Context(), address, nil)
	if err != nil {
		require.ErrorIs(t, err, websocket.ErrBadHandshake)
		_ = response.Body.Close()
		return nil, response.StatusCode
	}
	_ = response.Body.Close()
	t.Cleanup(func() { _ = conn.Close() })
	return conn, response.StatusCode
}

// isFree reports whether the gate would accept a connection.
func (g *Gateway) isFree() bool {
	slot, refused := g.gate.Admit(httptest.NewRequest(http.MethodGet, Path, nil), "192.0.2.9")
	if refused != nil {
		return false
	}
	defer slot.Release()
	return slot.Authenticate()
}

// An accepted connection holds a place until its link has ended, however it ends.
func TestAConnectionHoldsItsPlaceUntilItHasEnded(t *testing.T) {
	g, address := doorway(t, &gatewaytest.Store{Partitions: 4, Level: 1})
	waiting, status := dial(t, address, frame.Proto.Subprotocol())
	require.Equal(t, http.StatusSwitchingProtocols, status)
	require.True(t, g.isFree(), "a client that is not authenticated takes no place")
	for range 3 {
		conn := login(t, address)
		require.False(t, g.isFree())
		_, status = dial(t, address, frame.JSON.Subprotocol())
		require.Equal(t, http.StatusServiceUnavailable, status, "the gateway is full")
		require.NoError(t, conn.Close())
		require.Eventually(t, g.isFree, patience, time.Millisecond)
	}
	login(t, address)
	authenticate(t, waiting)
	require.Equal(t, "the gateway is full", heard(t, waiting).GetError().GetMessage(), "it was admitted when there was room")
	_, _, err := waiting.ReadMessage()
	var closed *websocket.CloseError
	require.ErrorAs(t, err, &closed)
	require.Equal(t, int(errcode.CloseOverloaded), closed.Code)
}

// A handshake that fails after the gate releases its place.
func TestAHandshakeThatFailsLeavesItsPlace(t *testing.T) {
	g, address := doorway(t, &gatewaytest.Store{Partitions: 4, Level: 1})
	_, status := dial(t, address, "mqtt")
	require.Equal(t, http.StatusBadRequest, status)
	require.True(t, g.isFree())
	connections, _ := g.sessions.Count()
	require.Zero(t, connections)
}

// A connection that passes the gate before the drain begins, and is upgraded afterwards, is closed at once.
func TestAConnectionThatComesWithTheDrainIsEnded(t *testing.T) {
	g, address := doorway(t, &gatewaytest.Store{Partitions: 4, Level: 1})
	g.sessions.Close()
	conn, status := dial(t, address, frame.JSON.Subprotocol())
	require.Equal(t, http.StatusSwitchingProtocols, status)
	_, _, err := conn.ReadMessage()
	require.Error(t, err)
	require.Eventually(t, g.isFree, patience, time.Millisecond)
	require.InDelta(t, 0, testutil.ToFloat64(g.metrics.Connects), 0)

	g.gate.Close()
	_, status = dial(t, address, frame.JSON.Subprotocol())
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.InDelta(t, 1, testutil.ToFloat64(g.metrics.Rejects[metrics.RejectDraining]), 0)
}

// login connects as ann.
func login(t *testing.T, address string) *websocket.Conn {
	t.Helper()
	conn, status := dial(t, address, frame.Proto.Subprotocol())
	require.Equal(t, http.StatusSwitchingProtocols, status)
	authenticate(t, conn)
	require.NotNil(t, heard(t, conn).GetConnected())
	return conn
}

// authenticate sends ann's connect frame.
func authenticate(t *testing.T, conn *websocket.Conn) {
	t.Helper()
	token, err := auth.Mint([]byte(secret), "ann", time.Hour, time.Now(), "", "")
	require.NoError(t, err)
	require.NoError(t, conn.WriteMessage(websocket.BinaryMessage, frame.AppendClient(nil, frame.Proto, &clientv1.ClientFrame{
		Id: 1, Request: &clientv1.ClientFrame_Connect{Connect: &clientv1.Connect{Token: token, DeviceId: "d"}},
	})))
}

// heard returns the next frame.
func heard(t *testing.T, conn *websocket.Conn) (f *clientv1.ServerFrame) {
	t.Helper()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
	_, message, err := conn.ReadMessage()
	require.NoError(t, err)
	require.NoError(t, frame.DecodeServer(frame.Proto, message, func(decoded *clientv1.ServerFrame) error {
		f = decoded
		return nil
	}))
	return f
}

func notice(t *testing.T, message proto.Message) *nats.Msg {
	t.Helper()
	data, err := proto.Marshal(message)
	require.NoError(t, err)
	return &nats.Msg{Data: data}
}

// A notice of revoked tokens closes the connections of its user and no others.
func TestANoticeOfRevokedTokensIsTaken(t *testing.T) {
	g, address := doorway(t, &gatewaytest.Store{Partitions: 4, Level: 1})
	conn := login(t, address)
	before := time.Now().Add(time.Minute).UnixMilli()
	notices{g.sessions, g.log}.onRevoked(notice(t, &brokerv1.Revoked{UserId: "bob", BeforeMs: before}))
	require.Equal(t, int64(0), g.sessions.RevokedBefore("ann"))
	notices{g.sessions, g.log}.onRevoked(notice(t, &brokerv1.Revoked{UserId: "ann", BeforeMs: before}))
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
	_, _, err := conn.ReadMessage()
	var closed *websocket.CloseError
	require.ErrorAs(t, err, &closed)
	require.Equal(t, int(errcode.CloseUnauthenticated), closed.Code)
	require.InDelta(t, 1, testutil.ToFloat64(g.metrics.Revoked), 0)
}

// After a notice of a new membership, the membership is looked up for those users who are connected to this gateway.
func TestANoticeOfANewMembershipIsTaken(t *testing.T) {
	store := &gatewaytest.Store{Partitions: 4, Level: 1}
	g, address := doorway(t, store)
	login(t, address)
	require.Eventually(t, func() bool { _, users := g.sessions.Count(); return users == 1 }, patience, time.Millisecond)
	notices{g.sessions, g.log}.onJoined(notice(t, &brokerv1.Joined{UserIds: []string{"bob", "ann"}, ConversationId: gatewaytest.GroupID}))
	require.Eventually(t, func() (asked bool) {
		store.Set(func() { asked = store.Lists == 2 }) // the first call was for connecting
		return asked
	}, patience, time.Millisecond)
}

// A notice that cannot be decoded changes nothing, and is logged for operators.
func TestNoticesThatCannotBeDecoded(t *testing.T) {
	g, address := doorway(t, &gatewaytest.Store{Partitions: 4, Level: 1})
	conn := login(t, address)
	logs := &telemetrytest.Log{}
	taken, nonsense := notices{g.sessions, slog.New(slog.NewTextHandler(logs, nil))}, &nats.Msg{Data: []byte{0xff}}
	taken.onJoined(nonsense)
	taken.onRevoked(nonsense)
	require.Contains(t, logs.String(), "a joined message cannot be decoded")
	require.Contains(t, logs.String(), "a notice of revoked tokens cannot be decoded")
	require.NoError(t, conn.WriteMessage(websocket.BinaryMessage, frame.AppendClient(nil, frame.Proto, &clientv1.ClientFrame{
		Id: 2, Request: &clientv1.ClientFrame_ListConversations{ListConversations: &clientv1.ListConversations{}},
	})))
	require.NotNil(t, heard(t, conn).GetConversations(), "the connection is still good")
}

// When the connection to NATS is restored, all state is compared with the store, once for any number of interruptions.
func TestEverythingIsComparedWhenNATSComesBack(t *testing.T) {
	store := &gatewaytest.Store{Partitions: 4, Level: 1}
	g, address := doorway(t, store)
	login(t, address)
	require.Eventually(t, func() bool { _, users := g.sessions.Count(); return users == 1 }, patience, time.Millisecond)
	require.Eventually(t, func() bool { return len(g.sessions.List("ann")) == 1 }, patience, time.Millisecond)
	status, done := make(chan nats.Status), make(chan struct{})
	go func() {
		defer close(done)
		onReconnect(g.ctx, status, g.compareAll)
	}()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		g.sessions.WatchMemberships(g.ctx)
	}()
	status <- nats.CONNECTED
	status <- nats.CONNECTED // the first comparison is finished
	require.Eventually(t, func() (asked bool) {
		store.Set(func() { asked = store.Compares >= 1 })
		return asked
	}, patience, time.Millisecond)
	require.Len(t, g.lost, 1)
	g.cancel()
	<-done
	<-watched
}

// Pending commands are counted only once the gateway runs.
func TestNothingIsPendingBeforeTheGatewayRuns(t *testing.T) {
	g := newGateway(t, nil, &gatewaytest.Store{Partitions: 4, Level: 1})
	require.Zero(t, g.pendingCommands())
	require.Contains(t, g.ID(), "gw-")
	require.NotNil(t, g.Server())
	require.NotNil(t, g.Debug())
	require.Equal(t, "tcp", g.Addr().Network())
}
