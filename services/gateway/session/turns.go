package session

const (
	// maxTurns limits the concurrent calls of the history service by all sessions, except those for connecting: after an
	// outage of the bus every session makes some calls.
	maxTurns = 16
	// maxTurnsPerUser limits the concurrent calls of one user: a user who is added to many conversations must not delay
	// other users.
	maxTurnsPerUser = 2
)

// takeTurn waits for one of the user's turns, and for one of all turns; returnTurn returns both. It returns false if the
// session ends first.
func (a *Sessions) takeTurn(s *Session) bool {
	select {
	case s.user.turns <- struct{}{}:
	case <-s.link.Done():
		return false
	}
	select {
	case a.turns <- struct{}{}:
		return true
	case <-s.link.Done():
		<-s.user.turns
		return false
	}
}

func (a *Sessions) returnTurn(s *Session) {
	<-a.turns
	<-s.user.turns
}
