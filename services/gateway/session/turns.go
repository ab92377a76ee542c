package session

const (
	// maxTurns limits how many calls of the history service sessions make at once, beside those for connecting: after an outage of the
	// bus every session makes some.
	maxTurns = 16
	// maxTurnsPerUser limits those of one user: whoever is added to many conversations must not delay others.
	maxTurnsPerUser = 2
)

// takeTurn waits for one of the turns of the session's user, and for one of all turns; returnTurn returns both. It returns false if
// the session ended first.
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
