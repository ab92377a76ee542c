package session

import (
	"cmp"
	"slices"
	"strings"
	"time"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"

	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/ids"
)

// Described is the description of a session for operators.
type Described struct {
	*gatewayv1.Connection

	// Number identifies the session in the recorder.
	Number  uint32
	session *Session
}

// List describes the sessions of a user by id, including those that are still connecting.
func (a *Sessions) List(userID ids.User) []Described {
	sessions := a.ofUser(userID)
	described := make([]Described, 0, len(sessions))
	for _, s := range sessions {
		described = append(described, s.describe(true))
	}
	return described
}

// ListPage describes at most limit sessions with an id above after, by id, and reports whether there are more. An empty
// user stands for all users.
func (a *Sessions) ListPage(userID ids.User, after ids.Connection, limit int) (page []Described, more bool) {
	sessions := a.ofUser(userID)
	if userID == "" {
		sessions = a.list()
	}
	sessions = slices.DeleteFunc(sessions, func(s *Session) bool { return s.id <= after })
	slices.SortFunc(sessions, func(x, y *Session) int { return cmp.Compare(x.id, y.id) })
	more = len(sessions) > limit
	for _, s := range sessions[:min(limit, len(sessions))] {
		page = append(page, s.describe(userID != "" || s.Opened()))
	}
	return page, more
}

// Get describes the session with this id; it returns false if there is no such session.
func (a *Sessions) Get(id ids.Connection) (Described, bool) {
	a.mu.Lock()
	s := a.byID[id]
	a.mu.Unlock()
	if s == nil {
		return Described{}, false
	}
	return s.describe(s.Opened()), true
}

// RevokedBefore returns the time up to which issued tokens of a user are refused, Unix ms, as far as this gateway knows.
func (a *Sessions) RevokedBefore(userID ids.User) int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if u := a.users[userID]; u != nil {
		return u.revoked
	}
	return 0
}

// QueuedBytes returns the total size of the send queues of all sessions, and the size of the largest.
func (a *Sessions) QueuedBytes() (sum, most uint64) {
	for _, s := range a.list() {
		queued := uint64(s.link.Describe().QueuedBytes)
		sum, most = sum+queued, max(most, queued)
	}
	return sum, most
}

// describe describes a session. authenticated means that the session is open or was found through its user. If it is
// false, the user is not known yet.
func (s *Session) describe(authenticated bool) Described {
	transport := s.link.Describe()
	c := &gatewayv1.Connection{
		ConnectionId: string(s.id), Remote: transport.Remote, Protocol: transport.Encoding.String(), SinceMs: s.since.UnixMilli(),
		TokenExpiresMs: s.expires.Load(), QueuedBytes: uint64(transport.QueuedBytes),
	}
	if authenticated {
		c.UserId, c.DeviceId, c.Client, c.Name = string(s.user.id), string(s.device), s.client, s.name
	}
	c.Conversations = uint32(len(s.listSubscriptions()))
	return Described{c, s.number, s}
}

// Close closes the session with a code. It returns false when it is already closing.
func (d Described) Close(code errcode.CloseCode, reason string) bool {
	return d.session.link.Close(code, reason)
}

// Standings returns the session's positions in its conversations, by id.
func (d Described) Standings() []*gatewayv1.Standing {
	var standings []*gatewayv1.Standing
	for _, subscription := range d.session.listSubscriptions() {
		if standing := subscription.Standing(); standing != nil {
			standings = append(standings, standing)
		}
	}
	slices.SortFunc(standings, func(x, y *gatewayv1.Standing) int {
		return strings.Compare(x.GetConversationId(), y.GetConversationId())
	})
	return standings
}

// Standing returns the session's position in one conversation; nil when it is not subscribed to it.
func (d Described) Standing(conversationID ids.Conversation) *gatewayv1.Standing {
	subscription := d.session.subscription(conversationID)
	if subscription == nil {
		return nil
	}
	return subscription.Standing()
}

// GoAway asks the client to reconnect elsewhere after a delay, and closes the session.
func (s *Session) GoAway(delay time.Duration) {
	s.send(s.encode(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_GoAway{GoAway: &clientv1.GoAway{ReconnectDelayMs: uint32(delay.Milliseconds())}}}))
	s.link.Close(errcode.CloseGoingAway, "the gateway is being stopped")
}

// Done is closed when the session has ended.
func (s *Session) Done() <-chan struct{} { return s.link.Done() }
