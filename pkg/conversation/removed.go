package conversation

import (
	"maps"

	"github.com/runnelhq/runnel/pkg/ids"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// MaxRemoved is how many removed users a conversation's state contains: those who were removed last. Others may be added by any
// member again.
const MaxRemoved = 2000

// RemovalKinds returns the kinds whose events end the membership of somebody else.
func RemovalKinds() []conversationv1.EventKind {
	return kindsThat(func(r *row) bool { return r.removes })
}

// remove records that a user was removed with the event at seq.
func (s *State) remove(user ids.User, seq ids.Seq) {
	s.Removed = maps.Clone(s.Removed)
	if s.Removed == nil {
		s.Removed = map[ids.User]ids.Seq{}
	}
	s.Removed[user] = seq
	if len(s.Removed) <= MaxRemoved {
		return
	}
	oldest := user
	for other, since := range s.Removed {
		if since < s.Removed[oldest] {
			oldest = other
		}
	}
	delete(s.Removed, oldest)
}

// admit records that users are members again.
func (s *State) admit(users []string) {
	copied := false
	for _, user := range users {
		if _, removed := s.Removed[ids.User(user)]; !removed {
			continue
		}
		if !copied {
			s.Removed, copied = maps.Clone(s.Removed), true
		}
		delete(s.Removed, ids.User(user))
	}
	if len(s.Removed) == 0 {
		s.Removed = nil
	}
}
