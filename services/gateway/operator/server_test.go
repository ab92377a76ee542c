package operator

import (
	"slices"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"

	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/rpc"

	"github.com/runnelhq/runnel/services/gateway/gatewaytest"
)

// Connections are listed by id, page by page, each once.
func TestConnectionsAreListedByID(t *testing.T) {
	s := newStage(t)
	want := append(s.many("ann", 4), s.many("bob", 3)...)
	slices.Sort(want)
	var got []string
	request := &gatewayv1.ListConnectionsRequest{Limit: 3}
	for pages := 1; ; pages++ {
		list, err := s.ListConnections(t.Context(), request)
		require.NoError(t, err)
		for _, c := range list.GetConnections() {
			got = append(got, c.GetConnectionId())
		}
		require.Equal(t, pages < 3, list.GetMore())
		if !list.GetMore() {
			require.Len(t, list.GetConnections(), 1)
			break
		}
		request.After = got[len(got)-1]
	}
	require.Equal(t, want, got)

	list, err := s.ListConnections(t.Context(), &gatewayv1.ListConnectionsRequest{Limit: 7})
	require.NoError(t, err)
	require.False(t, list.GetMore(), "the page contains what was requested, and there are no more")
	list, err = s.ListConnections(t.Context(), &gatewayv1.ListConnectionsRequest{})
	require.NoError(t, err)
	require.Len(t, list.GetConnections(), 7)
}

// A list can be restricted to one user. A connection that is not authenticated belongs to no user.
func TestConnectionsAreListedByUser(t *testing.T) {
	s := newStage(t)
	ids := s.many("ann", 2)
	s.many("bob", 1)
	s.open()
	slices.Sort(ids)
	list, err := s.ListConnections(t.Context(), &gatewayv1.ListConnectionsRequest{UserId: "ann"})
	require.NoError(t, err)
	require.Len(t, list.GetConnections(), 2)
	for i, c := range list.GetConnections() {
		require.Equal(t, ids[i], c.GetConnectionId())
		require.Equal(t, "ann", c.GetUserId())
		require.Equal(t, "d-ann", c.GetDeviceId())
		require.Equal(t, "test/1", c.GetClient())
		require.Equal(t, "memory", c.GetRemote())
	}
	list, err = s.ListConnections(t.Context(), &gatewayv1.ListConnectionsRequest{})
	require.NoError(t, err)
	require.Len(t, list.GetConnections(), 4)
	list, err = s.ListConnections(t.Context(), &gatewayv1.ListConnectionsRequest{UserId: "cem"})
	require.NoError(t, err)
	require.Empty(t, list.GetConnections())
}

func TestListsThatAreRefused(t *testing.T) {
	s := newStage(t)
	for field, request := range map[string]*gatewayv1.ListConnectionsRequest{
		"limit":   {Limit: rpc.MaxItems + 1},
		"user_id": {UserId: "not a user"},
	} {
		_, err := s.ListConnections(t.Context(), request)
		require.Equal(t, codes.InvalidArgument, status.Code(err))
		require.ErrorContains(t, err, field)
	}
	_, err := s.ListConnections(t.Context(), &gatewayv1.ListConnectionsRequest{Limit: rpc.MaxItems})
	require.NoError(t, err)
}

// One connection is shown with its position in its conversations.
func TestAConnectionIsShownWithItsStandings(t *testing.T) {
	s := newStage(t)
	s.store.Put(gatewaytest.Branch(nil, 3, "x"))
	c := s.connect("ann")
	got, err := s.GetConnection(t.Context(), &gatewayv1.GetConnectionRequest{ConnectionId: c.id})
	require.NoError(t, err)
	require.Equal(t, c.id, got.GetConnection().GetConnectionId())
	require.Equal(t, uint32(1), got.GetConnection().GetConversations())
	require.Len(t, got.GetStandings(), 1)
	require.Equal(t, groupID, got.GetStandings()[0].GetConversationId())
	require.Equal(t, uint64(3), got.GetStandings()[0].GetHead())
	_, err = s.GetConnection(t.Context(), &gatewayv1.GetConnectionRequest{ConnectionId: uuid.NewString()})
	require.Equal(t, codes.NotFound, status.Code(err))
}

// Connections are closed by id or by user, with a code that tells the client whether to reconnect.
func TestConnectionsAreClosed(t *testing.T) {
	for name, c := range map[string]struct {
		request func(mine *client) *gatewayv1.DisconnectRequest
		code    errcode.CloseCode
		closed  uint32
	}{
		"by id": {
			func(mine *client) *gatewayv1.DisconnectRequest {
				return &gatewayv1.DisconnectRequest{ConnectionId: mine.id}
			}, errcode.CloseDisconnected, 1,
		},
		"by user": {
			func(*client) *gatewayv1.DisconnectRequest { return &gatewayv1.DisconnectRequest{UserId: "ann"} },
			errcode.CloseDisconnected, 2,
		},
		"to stay away": {
			func(*client) *gatewayv1.DisconnectRequest {
				return &gatewayv1.DisconnectRequest{UserId: "ann", StayAway: true}
			}, errcode.CloseStayAway, 2,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			mine, _, other := s.connect("ann"), s.connect("ann"), s.connect("bob")
			answer, err := s.Disconnect(t.Context(), c.request(mine))
			require.NoError(t, err)
			require.Equal(t, c.closed, answer.GetClosed())
			require.Equal(t, c.code, <-mine.closes)
			s.gone(mine)
			sessions, _ := s.deps.Sessions.Count()
			require.LessOrEqual(t, 3-int(c.closed), sessions)
			_, there := s.deps.Sessions.Get(ids.Connection(other.id))
			require.True(t, there, "another user's stays")
		})
	}
}

// A connection that is already closing is not counted again.
func TestAConnectionIsClosedOnce(t *testing.T) {
	s := newStage(t)
	c := s.connect("ann")
	described, found := s.deps.Sessions.Get(ids.Connection(c.id))
	require.True(t, found)
	require.True(t, described.Close(errcode.CloseUnavailable, "test"))
	require.False(t, described.Close(errcode.CloseDisconnected, "test"))
	answer, err := s.Disconnect(t.Context(), &gatewayv1.DisconnectRequest{UserId: "ann"})
	require.NoError(t, err)
	require.Zero(t, answer.GetClosed())
	require.Equal(t, errcode.CloseUnavailable, <-c.closes)
}

func TestDisconnectsThatAreRefused(t *testing.T) {
	s := newStage(t)
	c := s.connect("ann")
	for name, r := range map[string]struct {
		request *gatewayv1.DisconnectRequest
		code    codes.Code
	}{
		"nobody":           {&gatewayv1.DisconnectRequest{StayAway: true}, codes.InvalidArgument},
		"both":             {&gatewayv1.DisconnectRequest{ConnectionId: c.id, UserId: "ann"}, codes.InvalidArgument},
		"no such id":       {&gatewayv1.DisconnectRequest{ConnectionId: uuid.NewString()}, codes.NotFound},
		"a user not there": {&gatewayv1.DisconnectRequest{UserId: "bob"}, codes.OK},
	} {
		t.Run(name, func(t *testing.T) {
			answer, err := s.Disconnect(t.Context(), r.request)
			require.Equal(t, r.code, status.Code(err))
			require.Zero(t, answer.GetClosed())
		})
	}
	_, there := s.deps.Sessions.Get(ids.Connection(c.id))
	require.True(t, there)
}
