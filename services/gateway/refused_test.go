package gateway

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/protocol"

	"github.com/runnelhq/runnel/services/gateway/gatewaytest"
)

// stranger is a client that has connected and has sent nothing yet. It speaks JSON.
type stranger struct {
	*websocket.Conn

	t *testing.T
}

func newStranger(t *testing.T, address string) *stranger {
	t.Helper()
	conn, status := dial(t, address, frame.JSON.Subprotocol())
	require.Equal(t, http.StatusSwitchingProtocols, status)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
	return &stranger{conn, t}
}

// text sends a message. One that does not arrive because the gateway has closed the connection is no failure.
func (s *stranger) text(message string) {
	_ = s.WriteMessage(websocket.TextMessage, []byte(message))
}

func (s *stranger) connect(token, device string) {
	s.text(string(frame.AppendClient(nil, frame.JSON, &clientv1.ClientFrame{
		Id: 1, Request: &clientv1.ClientFrame_Connect{Connect: &clientv1.Connect{Token: token, DeviceId: device}},
	})))
}

// next returns the next frame; the error is that of the connection.
func (s *stranger) next() (f *clientv1.ServerFrame, err error) {
	s.t.Helper()
	_, message, err := s.ReadMessage()
	if err != nil {
		return nil, err
	}
	require.NoError(s.t, frame.DecodeServer(frame.JSON, message, func(decoded *clientv1.ServerFrame) error {
		f = decoded
		return nil
	}))
	return f, nil
}

// closed reads to the end of the connection and returns its close code.
func (s *stranger) closed() errcode.CloseCode {
	s.t.Helper()
	for {
		if _, err := s.next(); err != nil {
			var closed *websocket.CloseError
			require.ErrorAs(s.t, err, &closed)
			return errcode.CloseCode(closed.Code)
		}
	}
}

func minted(t *testing.T, key string, issued time.Time, life time.Duration) string {
	t.Helper()
	token, err := auth.Mint([]byte(key), "ann", life, issued, "", "")
	require.NoError(t, err)
	return token
}

// unsigned returns a token that claims to need no signature.
func unsigned() string {
	part := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	return part(`{"alg":"none"}`) + "." + part(`{"sub":"ann"}`) + "."
}

// What closes a connection, and with which code, with the gateway's own sockets, links and tokens.
func TestBadConnectionsAreClosedWithTheirCode(t *testing.T) {
	valid := minted(t, secret, time.Now(), time.Hour)
	for name, c := range map[string]struct {
		do   func(s *stranger)
		code errcode.CloseCode
	}{
		"a frame before connect":  {func(s *stranger) { s.text(`{"id":"1","listConversations":{}}`) }, errcode.CloseProtocol},
		"nonsense before connect": {func(s *stranger) { s.text("{") }, errcode.CloseProtocol},
		"no token":                {func(s *stranger) { s.connect("", "d") }, errcode.CloseUnauthenticated},
		"a token of another key": {func(s *stranger) {
			s.connect(minted(t, strings.Repeat("x", 32), time.Now(), time.Hour), "d")
		}, errcode.CloseUnauthenticated},
		"an unsigned token": {func(s *stranger) { s.connect(unsigned(), "d") }, errcode.CloseUnauthenticated},
		"an expired token": {func(s *stranger) {
			s.connect(minted(t, secret, time.Now().Add(-61*time.Minute), time.Hour), "d")
		}, errcode.CloseTokenExpired},
		"a bad device id": {func(s *stranger) { s.connect(valid, "a.b") }, errcode.CloseProtocol},
		"an oversized message before connect": {func(s *stranger) {
			s.text(strings.Repeat(" ", protocol.MaxConnectBytes+1))
		}, errcode.CloseTooLarge},
		"an oversized message": {func(s *stranger) {
			s.connect(valid, "d")
			_, err := s.next()
			require.NoError(t, err)
			s.text(strings.Repeat(" ", protocol.MaxFrameBytes+1))
		}, errcode.CloseTooLarge},
		"the wrong kind of message": {func(s *stranger) {
			_ = s.WriteMessage(websocket.BinaryMessage, []byte("{}"))
		}, errcode.CloseProtocol},
		"a flood": {func(s *stranger) {
			s.connect(valid, "d")
			for _, err := s.next(); err == nil; _, err = s.next() { // each frame is answered, until the close
				s.text(`{"id":"9","listConversations":{}}`)
			}
		}, errcode.CloseFlood},
		"nothing but nonsense": {func(s *stranger) {
			s.connect(valid, "d")
			for range 10 {
				s.text("nonsense")
			}
		}, errcode.CloseProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			_, address := doorway(t, &gatewaytest.Store{Partitions: 4, Level: 1}, "--frame-rate=5")
			s := newStranger(t, address)
			c.do(s)
			require.Equal(t, c.code, s.closed())
		})
	}
}

// A message may be sent in fragments; sessions and operators see the address that the client comes from.
func TestAFragmentedMessageIsOneMessage(t *testing.T) {
	g, address := doorway(t, &gatewaytest.Store{Partitions: 4, Level: 1})
	s := newStranger(t, address)
	s.connect(minted(t, secret, time.Now(), time.Hour), "d")
	f, err := s.next()
	require.NoError(t, err)
	require.NotNil(t, f.GetConnected())
	w, err := s.NextWriter(websocket.TextMessage)
	require.NoError(t, err)
	for _, part := range []string{`{"id":"77",`, `"listConversations"`, `:{}}`} {
		_, err := w.Write([]byte(part + strings.Repeat(" ", 5000))) // larger than the write buffer: a frame of its own
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	f, err = s.next()
	require.NoError(t, err)
	require.Equal(t, uint64(77), f.GetId())
	require.NotNil(t, f.GetConversations())
	listed := g.sessions.List("ann")
	require.Len(t, listed, 1)
	require.Equal(t, "127.0.0.1", listed[0].GetRemote())
}

// The times in a token reach the session: they decide whether it was revoked, and when it expires.
func TestTheTimesOfATokenCount(t *testing.T) {
	store := &gatewaytest.Store{Partitions: 4, Level: 1}
	_, address := doorway(t, store, "--max-connections=10")
	revoked := time.Now().Truncate(time.Second)
	store.Set(func() { store.Revocations = []*historyv1.Revocation{{UserId: "ann", BeforeMs: revoked.UnixMilli()}} })

	before := newStranger(t, address)
	before.connect(minted(t, secret, revoked.Add(-time.Minute), time.Hour), "d")
	f, err := before.next()
	require.NoError(t, err)
	require.Equal(t, "the token was revoked", f.GetError().GetMessage())
	code := before.closed()
	require.Equal(t, errcode.CloseUnauthenticated, code)
	require.False(t, code.Reconnect(), "the same token would be refused again")

	after := newStranger(t, address)
	issued := revoked.Add(10 * time.Second) // clocks differ
	after.connect(minted(t, secret, issued, time.Minute), "d")
	f, err = after.next()
	require.NoError(t, err)
	require.Equal(t, issued.Add(time.Minute).UnixMilli(), f.GetConnected().GetTokenExpiresMs())
	refresh := func(token string) *clientv1.ServerFrame {
		after.text(string(frame.AppendClient(nil, frame.JSON, &clientv1.ClientFrame{
			Id: 2, Request: &clientv1.ClientFrame_Refresh{Refresh: &clientv1.Refresh{Token: token}},
		})))
		f, err := after.next()
		require.NoError(t, err)
		return f
	}
	require.Equal(t, "the token was revoked", refresh(minted(t, secret, revoked.Add(-time.Minute), time.Hour)).GetError().GetMessage())
	refreshed := refresh(minted(t, secret, issued, time.Hour)).GetRefreshed()
	require.Equal(t, issued.Add(time.Hour).UnixMilli(), refreshed.GetTokenExpiresMs(), "the connection lives on")
}

// A handshake is refused over HTTP, with the status that tells the client what is wrong.
func TestHandshakesAreRefusedWithAReason(t *testing.T) {
	_, address := doorway(t, &gatewaytest.Store{Partitions: 4, Level: 1},
		"--max-connections=10", "--max-connections-per-ip=3", "--allowed-origins=https://chat.example.com")
	shake := func(origin string, subprotocols ...string) int {
		header := http.Header{}
		if origin != "" {
			header.Set("Origin", origin)
		}
		dialer := websocket.Dialer{Subprotocols: subprotocols}
		conn, response, err := dialer.DialContext(t.Context(), address, header)
		if err == nil {
			t.Cleanup(func() { _ = conn.Close() })
		}
		_ = response.Body.Close()
		return response.StatusCode
	}
	json := frame.JSON.Subprotocol()
	for name, c := range map[string]struct {
		origin       string
		subprotocols []string
		status       int
	}{
		"a foreign page":        {"https://evil.example.com", []string{json}, http.StatusForbidden},
		"a listed page":         {"https://chat.example.com", []string{json}, http.StatusSwitchingProtocols},
		"a page of the gateway": {"http" + strings.TrimSuffix(strings.TrimPrefix(address, "ws"), Path), []string{json}, http.StatusSwitchingProtocols},
		"no subprotocol":        {"", nil, http.StatusBadRequest},
		"another subprotocol":   {"", []string{"mqtt"}, http.StatusBadRequest},
	} {
		require.Equal(t, c.status, shake(c.origin, c.subprotocols...), name)
	}
	require.Equal(t, http.StatusSwitchingProtocols, shake("", json))
	require.Equal(t, http.StatusTooManyRequests, shake("", json), "the fourth connection of this address")
}
