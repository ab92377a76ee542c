package session

import (
	"context"
	"maps"
	"slices"
	"sync"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/rpc"

	"github.com/runnelhq/runnel/services/gateway/metrics"
)

// lookups combines the lookups of one user's present memberships, for all sessions of the user. While one call of the
// history service is under way, new lookups wait for the next call. A user who is added to many conversations causes one
// call at a time, instead of one for each conversation and session.
type lookups struct {
	mu      sync.Mutex
	running bool
	wanted  map[ids.Conversation]*lookup // lookups for which no call has begun
}

// lookup is the lookup of one membership.
type lookup struct {
	waiters int           // guarded by lookups.mu
	sinceMs int64         // guarded by lookups.mu; when the earliest session that waits began, Unix ms
	done    chan struct{} // closed when the other fields are set
	found   membership
	err     error
}

// membership is what a lookup finds. It is shared and must not be changed.
type membership struct {
	summary *historyv1.Summary // of the present membership; nil if the user is not a member
	// ended is the event that began the earliest membership that has ended and is not older than the session, or than another session
	// of the user that looked it up at the same time; 0 for none.
	ended ids.Seq
}

// present looks up the user's present membership of a conversation, and the earliest one that has ended since the session began.
func (s *Session) present(conversationID ids.Conversation) (membership, error) {
	u := s.user
	ls := &u.lookups
	ls.mu.Lock()
	l := ls.wanted[conversationID]
	if l == nil {
		l = &lookup{done: make(chan struct{})}
		if ls.wanted == nil {
			ls.wanted = map[ids.Conversation]*lookup{}
		}
		ls.wanted[conversationID] = l
	}
	l.waiters++
	if since := s.since.Add(-oldSlack).UnixMilli(); l.sinceMs == 0 || since < l.sinceMs {
		l.sinceMs = since
	}
	if !ls.running {
		ls.running = true
		s.all.workers.Go(func() { s.all.lookUpAll(u) })
	}
	ls.mu.Unlock()
	select {
	case <-l.done:
		return l.found, l.err
	case <-s.link.Done():
	}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if l.waiters--; l.waiters == 0 && ls.wanted[conversationID] == l {
		delete(ls.wanted, conversationID)
	}
	return membership{}, errPlaceGone
}

// lookUpAll makes calls until no lookup is waiting. Each call takes one of all turns.
func (a *Sessions) lookUpAll(u *user) {
	for {
		turn := true
		select {
		case a.turns <- struct{}{}:
		case <-a.ctx.Done():
			turn = false
		}
		batch := u.lookups.next()
		if len(batch) > 0 {
			a.lookUp(u, batch)
		}
		if turn {
			<-a.turns
		}
		if len(batch) == 0 {
			return
		}
	}
}

// next returns the lookups for the next call. If none is waiting, it ends the run.
func (ls *lookups) next() map[ids.Conversation]*lookup {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	batch := map[ids.Conversation]*lookup{}
	for id, l := range ls.wanted {
		if len(batch) == rpc.MaxItems {
			break
		}
		batch[id] = l
		delete(ls.wanted, id)
	}
	ls.running = len(batch) > 0
	return batch
}

func (a *Sessions) lookUp(u *user, batch map[ids.Conversation]*lookup) {
	ctx, cancel := context.WithTimeout(a.ctx, a.deps.Config.HistoryTimeout)
	defer cancel()
	request := &historyv1.ListConversationsRequest{UserId: string(u.id), Limit: rpc.MaxItems}
	for _, id := range slices.Sorted(maps.Keys(batch)) {
		request.ConversationIds = append(request.ConversationIds, string(id))
		if since := batch[id].sinceMs; request.GetEndedSinceMs() == 0 || since < request.GetEndedSinceMs() {
			request.EndedSinceMs = max(since, 1)
		}
	}
	a.deps.Metrics.Reads[metrics.ReadList].Inc()
	list, err := a.deps.History.ListConversations(ctx, request)
	for _, summary := range list.GetConversations() {
		if l := batch[ids.Conversation(summary.GetConversationId())]; l != nil {
			l.found.summary = summary
		}
	}
	for _, ended := range list.GetEnded() {
		if l := batch[ids.Conversation(ended.GetConversationId())]; l != nil && l.found.ended == 0 {
			l.found.ended = ids.Seq(ended.GetJoinedSeq())
		}
	}
	for _, l := range batch {
		l.err = err
		close(l.done)
	}
}
