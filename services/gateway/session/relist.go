package session

import (
	"context"

	"github.com/runnelhq/runnel/pkg/ids"
)

// relist compares the list of conversations with the store.
func (s *Session) relist() {
	s.all.workers.Go(func() {
		if !s.all.takeTurn(s) {
			return
		}
		defer s.all.returnTurn()
		ctx, cancel := context.WithTimeout(s.all.ctx, s.all.deps.Config.HistoryTimeout)
		defer cancel()
		summaries, revokedBefore, err := s.all.listAll(ctx, s.user.id)
		if err != nil {
			return // tried again the next time
		}
		s.all.revoke(s.user.id, revokedBefore, nil)
		for _, summary := range summaries {
			s.notice(ids.Conversation(summary.GetConversationId()), ids.Seq(summary.GetJoinedSeq()))
		}
	})
}
