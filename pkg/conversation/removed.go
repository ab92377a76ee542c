package conversation

import (
	"maps"

	"github.com/runnelhq/runnel/pkg/ids"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// MaxRemoved is the number of removed users that a conversation's state contains: the users who were removed last. Any
// member may add users who were removed earlier.
const MaxRemoved = 2000

// RemovalKinds returns the kinds whose events end the membership of another user.
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
