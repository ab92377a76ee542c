package e2e_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/fleet"
)

// debug asks a debug endpoint and gives the status and what it shows.
func (s *stage) debug(path string) (int, map[string]any) {
	s.t.Helper()
	w := httptest.NewRecorder()
	s.gw.Debug().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	shown := map[string]any{}
	require.NoError(s.t, json.Unmarshal(w.Body.Bytes(), &shown), "%s: %s", path, w.Body)
	require.Equal(s.t, "application/json", w.Header().Get("Content-Type"))
	return w.Code, shown
}

func TestDebugShowsAGatewayFromTheInside(t *testing.T) {
	s := newStage(t, nil)
	s.commit(group("bob"))
	ann, bob := s.login("ann"), s.login("bob")
	ann.seqs(1)
	bob.seqs(1)
	s.say("2")
	ann.seqs(2)
	bob.seqs(2)
	bob.ackTo(s.id, 2)
	bob.ask(listMembers(s.id)) // the acknowledgement was handled before
	id := s.connectionID("bob")

	code, all := s.debug("/debug/connections")
	require.Equal(t, http.StatusOK, code)
	require.Len(t, all["connections"], 2)
	_, page := s.debug("/debug/connections?limit=1")
	require.Len(t, page["connections"], 1)
	require.Equal(t, true, page["more"])
	_, bobs := s.debug("/debug/connections?user=bob")
	require.Len(t, bobs["connections"], 1)
	require.Equal(t, id, bobs["connections"].([]any)[0].(map[string]any)["connection_id"])

	_, one := s.debug("/debug/connections/" + id)
	require.Equal(t, "bob", one["connection"].(map[string]any)["user_id"])
	require.Equal(t, "2", one["standings"].([]any)[0].(map[string]any)["acknowledged"])

	s.tellRevoked(1) // long ago
	require.Eventually(t, func() bool {
		_, user := s.debug("/debug/users/bob")
		return user["revoked_before_ms"] == 1.0
	}, patience, patience/3000)
	_, user := s.debug("/debug/users/bob")
	require.Len(t, user["connections"], 1)

	_, room := s.debug("/debug/conversations/" + s.id)
	require.EqualValues(t, 2, room["head"])
	require.EqualValues(t, 2, room["seen"])
	require.EqualValues(t, 2, room["recent"])
	require.EqualValues(t, 1, room["recent_from"])
	require.Equal(t, false, room["catching"])
	acked := map[string]float64{}
	for _, one := range room["subscriptions"].([]any) {
		acked[one.(map[string]any)["user"].(string)] = one.(map[string]any)["acknowledged"].(float64)
	}
	require.Equal(t, map[string]float64{"ann": 0, "bob": 2}, acked)

	for path, want := range map[string]int{
		"/debug/connections?limit=x":                              http.StatusBadRequest,
		"/debug/connections?user=*":                               http.StatusBadRequest,
		"/debug/connections/x":                                    http.StatusNotFound,
		"/debug/users/cem":                                        http.StatusNotFound,
		"/debug/users/not%20an%20id":                              http.StatusBadRequest,
		"/debug/conversations/not%20an%20id":                      http.StatusBadRequest,
		"/debug/conversations/" + conversation.DirectID("x", "y"): http.StatusNotFound,
	} {
		code, shown := s.debug(path)
		require.Equal(t, want, code, path)
		require.NotEmpty(t, shown["error"], path)
	}
}

func TestTheOverviewAddsUp(t *testing.T) {
	s := newStage(t, nil)
	s.commit(group("bob"))
	ann, bob, again := s.login("ann"), s.login("bob"), s.login("bob")
	for _, r := range []*raw{ann, bob, again} {
		r.seqs(1)
	}
	s.answerCommands()
	require.NotNil(t, ann.ask(submit(s.id, text("2"))).GetOutcome())
	o := s.gw.Overview()
	require.Equal(t, s.gw.ID(), o.Gateway)
	require.Equal(t, 3, o.Connections)
	require.Equal(t, 2, o.Users)
	require.Equal(t, 1, o.Conversations)
	require.Equal(t, uint64(3), o.Connects)
	require.Equal(t, uint64(1), o.Commands)
	require.Equal(t, uint64(3), o.Deliveries)
	require.NotZero(t, o.BytesIn)
	require.NotZero(t, o.BytesOut)
	require.False(t, o.Draining)
	require.NotEmpty(t, o.Version)
	described, err := s.gw.Server().GetGateway(t.Context(), &gatewayv1.GetGatewayRequest{})
	require.NoError(t, err)
	require.Equal(t, uint32(3), described.GetConnections())
	require.Equal(t, uint32(2), described.GetUsers())
	require.Equal(t, o.Started.UnixMilli(), described.GetStartedMs())
}

// TestAllGatewaysCanBeAskedOverNATS asks as an admin's worker does, without an address.
func TestAllGatewaysCanBeAskedOverNATS(t *testing.T) {
	s := newStage(t, nil)
	s.commit(group("bob"))
	bob := s.login("bob")
	bob.seqs(1)
	asker := fleet.New(fleet.Config{NATS: s.nc, Service: "delivery", Instance: "asker", Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	done := make(chan error, 1)
	running, stop := context.WithCancel(ctx)
	go func() { done <- asker.Run(running) }()
	defer func() {
		stop()
		require.NoError(t, <-done)
	}()
	require.Eventually(t, func() bool { return len(asker.Members("gateway")) == 1 }, patience, patience/3000)
	answers, err := fleet.AskAll[gatewayv1.ExplainResponse](ctx, asker, "gateway", "Explain", &gatewayv1.ExplainRequest{
		UserId: "bob", ConversationId: s.id, Seq: 1,
	})
	require.NoError(t, err)
	require.Len(t, answers, 1)
	require.NoError(t, answers[0].Err)
	require.Equal(t, s.gw.ID(), answers[0].Instance)
	require.Equal(t, s.connectionID("bob"), answers[0].Response.GetTrails()[0].GetConnectionId())
	closed, err := fleet.AskOne[gatewayv1.DisconnectResponse](ctx, asker, s.gw.ID(), "gateway", "Disconnect", &gatewayv1.DisconnectRequest{UserId: "bob"})
	require.NoError(t, err)
	require.Equal(t, uint32(1), closed.GetClosed())
}
