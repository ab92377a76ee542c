package operator

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/services/gateway/gatewaytest"
)

// show calls the admin port.
func (s *stage) show(path string) (code int, shown map[string]any) {
	s.t.Helper()
	w := httptest.NewRecorder()
	s.Debug().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	require.Equal(s.t, "application/json", w.Header().Get("Content-Type"))
	require.Equal(s.t, "no-store", w.Header().Get("Cache-Control"))
	require.NoError(s.t, json.Unmarshal(w.Body.Bytes(), &shown), "%s", w.Body)
	return w.Code, shown
}

func list(t *testing.T, shown map[string]any, name string) []map[string]any {
	t.Helper()
	values, is := shown[name].([]any)
	require.True(t, is, "%v", shown)
	all := make([]map[string]any, len(values))
	for i := range values {
		all[i], is = values[i].(map[string]any)
		require.True(t, is)
	}
	return all
}

func TestDebugShowsConnections(t *testing.T) {
	s := newStage(t)
	s.store.Put(gatewaytest.Branch(nil, 3, "x"))
	s.many("ann", 2)
	bob := s.connect("bob")
	code, shown := s.show("/debug/connections")
	require.Equal(t, http.StatusOK, code)
	require.Len(t, list(t, shown, "connections"), 3)
	_, shown = s.show("/debug/connections?user=ann&limit=1")
	require.Len(t, list(t, shown, "connections"), 1)
	require.Equal(t, true, shown["more"])
	first := list(t, shown, "connections")[0]
	require.Equal(t, "ann", first["user_id"], "fields are named as in the proto files")
	after, is := first["connection_id"].(string)
	require.True(t, is)
	_, shown = s.show("/debug/connections?user=ann&after=" + after)
	require.Len(t, list(t, shown, "connections"), 1)
	require.Nil(t, shown["more"])
	code, shown = s.show("/debug/connections/" + bob.id)
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, groupID, list(t, shown, "standings")[0]["conversation_id"])
}

func TestDebugShowsUsers(t *testing.T) {
	s := newStage(t)
	s.many("ann", 2)
	s.connect("bob")
	code, shown := s.show("/debug/users/ann")
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, "ann", shown["user"])
	require.Len(t, list(t, shown, "connections"), 2)
	require.Nil(t, shown["revoked_before_ms"])
	s.deps.Sessions.Revoke("bob", 5) // before the token was issued
	_, shown = s.show("/debug/users/bob")
	require.InDelta(t, 5, shown["revoked_before_ms"], 0)
}

func TestDebugShowsRooms(t *testing.T) {
	s := newStage(t)
	log := gatewaytest.Branch(nil, 3, "x")
	s.store.Put(log)
	ann, bob := s.connect("ann"), s.connect("bob")
	log = gatewaytest.Branch(log, 4, "x")
	s.store.Put(log)
	s.live(log[3])
	ann.next()
	bob.next()
	code, shown := s.show("/debug/conversations/" + groupID)
	require.Equal(t, http.StatusOK, code)
	for name, want := range map[string]any{
		"conversation": groupID, "ready": true, "head": 4.0, "seen": 4.0, "catching": false, "recent_from": 4.0, "recent": 1.0,
	} {
		require.Equal(t, want, shown[name], name)
	}
	subscriptions := list(t, shown, "subscriptions")
	require.Len(t, subscriptions, 2)
	require.Less(t, subscriptions[0]["connection"], subscriptions[1]["connection"])
	require.InDelta(t, 4, subscriptions[0]["sent"], 0)
	require.InDelta(t, 3, subscriptions[0]["acknowledged"], 0)
	require.Nil(t, shown["more_subscriptions"])
}

// A malformed id and an unknown id get different answers.
func TestDebugAnswersErrors(t *testing.T) {
	s := newStage(t)
	for path, code := range map[string]int{
		"/debug/connections?limit=x":                       http.StatusBadRequest,
		"/debug/connections?limit=-1":                      http.StatusBadRequest,
		"/debug/connections?limit=100000":                  http.StatusBadRequest,
		"/debug/connections?user=a%20b":                    http.StatusBadRequest,
		"/debug/connections/" + uuid.NewString():           http.StatusNotFound,
		"/debug/users/a%07b":                               http.StatusBadRequest,
		"/debug/users/ann":                                 http.StatusNotFound,
		"/debug/conversations/x":                           http.StatusBadRequest,
		"/debug/conversations/" + groupID:                  http.StatusNotFound,
		"/debug/connections?limit=99999999999999999999999": http.StatusBadRequest,
	} {
		got, shown := s.show(path)
		require.Equal(t, code, got, path)
		require.NotEmpty(t, shown["error"], path)
	}
	w := httptest.NewRecorder()
	answer(w, nil, errors.New("broken"))
	require.Equal(t, http.StatusInternalServerError, w.Code)
}
