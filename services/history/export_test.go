package history

import "time"

// SetRecheck sets how often a waiting reader of the feed reads again without being woken. It must be called before the first call.
func (s *Server) SetRecheck(interval time.Duration) { s.recheck = interval }
