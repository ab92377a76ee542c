package session

import (
	"time"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"

	"github.com/runnelhq/runnel/pkg/errcode"
)

const (
	// maxSilentBeats is how many heartbeats may stay unanswered.
	maxSilentBeats = 2
	// moreHeads is the time until the next heartbeat if a heartbeat had no room for all new heads.
	moreHeads = time.Second
)

// tick does the periodic work of a session.
func (s *Session) tick(now time.Time) {
	cfg := &s.all.deps.Config
	if s.state.Load() != stateOpen {
		if s.state.Load() == stateAccepted && now.Sub(s.since) > cfg.ConnectTimeout {
			s.link.Close(errcode.CloseConnectTimeout, "no connect frame in time")
		}
		return
	}
	if expires := s.expires.Load(); expires != 0 {
		left := time.UnixMilli(expires).Sub(now)
		switch {
		case left <= 0:
			s.link.Close(errcode.CloseTokenExpired, "the token has expired")
			return
		case left <= cfg.TokenWarning && !s.warned.Swap(true):
			s.reply(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_TokenExpiring{
				TokenExpiring: &clientv1.TokenExpiring{ExpiresMs: expires},
			}})
		}
	}
	if now.UnixNano() < s.nextBeat.Load() {
		return
	}
	if s.beatPending.Load() >= maxSilentBeats && now.UnixNano()-s.lastHeard.Load() > int64(cfg.Heartbeat) {
		s.link.Close(errcode.CloseNoPong, "heartbeats stayed unanswered")
		return
	}
	s.nextBeat.Store(now.Add(cfg.Heartbeat).UnixNano())
	s.beatPending.Add(1)
	heads, more := s.heads(s.all.deps.Rooms.PageBytes(s.listener.Answers))
	if more {
		s.nextBeat.Store(now.Add(min(cfg.Heartbeat, moreHeads)).UnixNano())
	}
	s.reply(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Heartbeat{Heartbeat: &clientv1.Heartbeat{Heads: heads}}})
}

// heads returns, for a heartbeat, the heads that moved since the last heartbeat, up to about most bytes; more is true if
// some did not fit. It also forwards the client's acknowledgements again if they moved.
func (s *Session) heads(most int) (heads []*clientv1.Position, more bool) {
	size := 0
	for _, subscription := range s.listSubscriptions() {
		if size > most {
			return heads, true // the remaining conversations report their heads in the next heartbeat
		}
		beat := subscription.Beat()
		if beat.Acknowledged {
			s.all.deps.Acks.Add(beat.ConversationID, s.user.id, beat.Delivered, beat.Read)
		}
		if beat.Head != 0 {
			head := &clientv1.Position{ConversationId: string(beat.ConversationID), Seq: uint64(beat.Head)}
			heads, size = append(heads, head), size+head.SizeVT()
		}
	}
	return heads, false
}
