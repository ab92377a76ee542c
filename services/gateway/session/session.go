// Package session is a device's authenticated presence on a gateway: it connects, resumes, handles the client's frames, and sends
// heartbeats. A session runs on one link and subscribes to rooms; package requests carries out the client's requests. A session
// never writes to a socket, never decides order or permission, and holds only state that can be lost: a client that loses its
// session resumes on another gateway.
//
// Package stretch decides what a client is sent of its user's memberships, for each conversation separately (place.go,
// notice.go, catchup.go). Notices may be lost, so memberships are also compared with the store (compare.go).
//
// Locks: the locks of rooms first, then Sessions.mu or Session.mu (never both at once), then the link's lock.
package session

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/gateway/flight"
	"github.com/runnelhq/runnel/services/gateway/link"
	"github.com/runnelhq/runnel/services/gateway/room"
)

// Session is one client on one link.
//
//	accepted ──connect frame──▶ connecting ──token and conversations good──▶ open ──▶ closing ──▶ ended
//	    │                           │                                         ▲ frames, pushes
//	    └── no connect in time ─────┴── refused: closed with its code
//
// The link calls Receive on one goroutine. A filler runs only while a subscription is behind; calls of history run on
// goroutines of their own, a few at a time.
type Session struct {
	all    *Sessions
	id     ids.Connection
	number uint32 // identifies id in the recorder
	link   link.Link
	since  time.Time

	frames *rate.Limiter // limits the frames of the session
	abuse  int           // consecutive frames above the rate; used by the reader only
	excess int           // consecutive acknowledgements and pongs above the rate; used by the reader only
	bad    int           // frames that could not be decoded; used by the reader only
	early  int           // consecutive acknowledgements with a position that does not exist; used by the reader only

	authenticated func() bool // see OnAuthenticated; used by the reader only

	// Written once by the reader before state becomes open; afterwards any goroutine may read them.
	listener room.Listener
	user     *user
	device   ids.Device
	name     string // the user's name in the token, for operators
	client   string
	accepted bool // the client wants accepted frames

	state       atomic.Int32
	issued      int64        // Unix ms at which the token was issued, 0 if not known; guarded by Sessions.mu
	calls       atomic.Int32 // calls of history that are under way
	lastHeard   atomic.Int64 // Unix ns of the last message
	nextBeat    atomic.Int64 // Unix ns of the next heartbeat
	expires     atomic.Int64 // Unix ms of the token's expiry; 0 for never
	warned      atomic.Bool  // the client was warned of the token's expiry
	beatPending atomic.Int32 // heartbeats without an answer

	mu       sync.Mutex
	places   places
	notices  early                // notices that arrived while the session was connecting
	waiting  []waiting            // conversations that wait to catch up
	catchers int                  // number of goroutines that catch up
	behind   []*room.Subscription // waiting for the filler
	filling  bool
}

const (
	stateAccepted int32 = iota
	stateConnecting
	stateOpen
)

const (
	// maxBadFrames is the number of undecodable frames after which a session is closed. maxAbuse is the number of
	// consecutive frames above the rate after which it is closed.
	maxBadFrames = 10
	maxAbuse     = 200
	// maxExcess is the number of consecutive acknowledgements and pongs that may exceed the rate.
	maxExcess = 10_000
	// maxEarlyAcks is the number of consecutive acknowledgements that may name an event that does not exist. An honest
	// client may read events from history and acknowledge them before this gateway has received them.
	maxEarlyAcks = 100
)

const (
	codeInvalid         = conversationv1.ErrorCode_ERROR_CODE_INVALID
	codeProtocol        = conversationv1.ErrorCode_ERROR_CODE_PROTOCOL
	codeUnavailable     = conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE
	codeUnauthenticated = conversationv1.ErrorCode_ERROR_CODE_UNAUTHENTICATED
)

var errClosing = errors.New("the link is being closed")

// OnAuthenticated sets the function that is called once, when the client is authenticated. If it returns false, the
// gateway has no room for the client, and refuses it. OnAuthenticated must be called before the link is served.
func (s *Session) OnAuthenticated(hasRoom func() bool) { s.authenticated = hasRoom }

// Receive implements link.Receiver: it decodes one message and handles its frames in order.
func (s *Session) Receive(message []byte) {
	s.lastHeard.Store(time.Now().UnixNano())
	s.all.deps.Metrics.BytesIn.Add(float64(len(message)))
	for {
		err := frame.DecodeClient(s.listener.Answers.Codec(), message, func(f *clientv1.ClientFrame) error {
			s.all.deps.Metrics.FramesIn.Inc()
			if s.admit(f) {
				s.handle(f)
			}
			if s.link.Closing() {
				return errClosing // the rest of the message is ignored
			}
			return nil
		})
		bad, isBad := errors.AsType[*frame.Error](err)
		if !isBad {
			return
		}
		// A frame whose id could not be read is answered with id 0, as client.proto says: its sender may wait for an answer.
		s.sendError(bad.ID, &conversationv1.Error{Code: codeInvalid, Field: bad.Field, Message: bad.Message})
		if s.bad++; s.bad >= maxBadFrames || s.state.Load() != stateOpen {
			s.link.Close(errcode.CloseProtocol, "frames could not be decoded")
			return
		}
		if message = bad.Rest; len(message) == 0 {
			return
		}
	}
}

// Opened implements link.Receiver.
func (s *Session) Opened() bool { return s.state.Load() == stateOpen }

// AllowControl implements link.Receiver. Control messages count towards the rate of frames.
func (s *Session) AllowControl() bool { return s.withinRate() }

// Ended implements link.Receiver: it removes the session from its rooms and from the table.
func (s *Session) Ended(code errcode.CloseCode) {
	subscriptions := s.listSubscriptions()
	s.mu.Lock()
	s.places, s.behind = places{}, nil
	s.mu.Unlock()
	if s.user != nil {
		s.all.deps.Closed.Add(flight.Closed{
			User: s.user.id, Device: s.device, ConnectionID: s.id, Number: s.number, OpenedAt: s.since, ClosedAt: time.Now(), Code: code,
			Standings: unfinished(subscriptions),
		})
	}
	for _, subscription := range subscriptions {
		s.all.deps.Rooms.Leave(subscription)
	}
	s.all.forget(s, code)
}

// unfinished returns the positions of an ending session in conversations that it had not fully acknowledged, at most
// flight.MaxClosedStandings.
func unfinished(subscriptions []*room.Subscription) (standings []*gatewayv1.Standing) {
	for _, subscription := range subscriptions {
		if standing := subscription.Unfinished(); standing != nil {
			standings = append(standings, standing)
		}
		if len(standings) == flight.MaxClosedStandings {
			break
		}
	}
	return standings
}

// hasEnded reports whether the link has ended.
func (s *Session) hasEnded() bool {
	select {
	case <-s.link.Done():
		return true
	default:
		return false
	}
}

// admit applies the session's frame rate. Pongs and acks above the rate are still handled: a dropped ack would make the
// gateway repeat events, and a dropped pong would end the session.
func (s *Session) admit(f *clientv1.ClientFrame) bool {
	if f.GetAck() != nil || f.GetPong() != nil {
		return s.withinAckRate()
	}
	if s.withinRate() {
		return true
	}
	if s.link.Closing() {
		return false
	}
	s.refuseLimited(f.GetId(), "too many frames on this connection")
	return false
}

func (s *Session) setExpiry(claims auth.Claims) {
	if claims.Expires.IsZero() {
		s.expires.Store(0)
	} else {
		s.expires.Store(claims.Expires.UnixMilli())
	}
	s.warned.Store(false)
}
