package session

import (
	"context"
	"fmt"
	"slices"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/rpc"

	"github.com/runnelhq/runnel/services/gateway/metrics"
)

// sortFormer handles the conversations that a client resumes but whose member its user is not. It divides them into those
// whose member the user once was and the unknown ones. It makes one call for all conversations, because a client may name
// any number of conversations that do not exist.
func (a *Sessions) sortFormer(userID ids.User, positions []*clientv1.Position) (known []*clientv1.Position, unknown []ids.Conversation, err error) {
	for part := range slices.Chunk(positions, rpc.MaxItems) {
		request := &historyv1.FindMembershipsRequest{UserId: string(userID)}
		for _, p := range part {
			request.ConversationIds = append(request.ConversationIds, p.GetConversationId())
		}
		a.deps.Metrics.Reads[metrics.ReadMemberships].Inc()
		ctx, cancel := context.WithTimeout(a.ctx, a.deps.Config.HistoryTimeout)
		found, err := a.deps.History.FindMemberships(ctx, request)
		cancel()
		if err != nil {
			return nil, nil, fmt.Errorf("find memberships of a user: %w", err)
		}
		was := make(map[string]bool, len(found.GetMemberships()))
		for _, m := range found.GetMemberships() {
			was[m.GetConversationId()] = true
		}
		for _, p := range part {
			if was[p.GetConversationId()] {
				known = append(known, p)
			} else {
				unknown = append(unknown, ids.Conversation(p.GetConversationId()))
			}
		}
	}
	return known, unknown, nil
}

// tellUnknown tells the client that its user never was a member of these conversations, which the client had named.
func (s *Session) tellUnknown(conversations []ids.Conversation) {
	for _, id := range conversations {
		s.link.Queue(s.encodeDetached(id, 0))
	}
	s.link.Flush()
}
