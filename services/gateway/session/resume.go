package session

import (
	"github.com/runnelhq/runnel/pkg/ids"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// resumePlan holds the position at which each conversation resumes in a session.
type resumePlan struct {
	from   map[ids.Conversation]*clientv1.Position // the positions of the conversations that the client named
	start  clientv1.Start
	former []*clientv1.Position // conversations that the client named but whose member its user is not now, and perhaps never was
}

func planResume(request *clientv1.Connect, summaries []*historyv1.Summary) resumePlan {
	plan := resumePlan{start: request.GetStart()}
	if len(request.GetResume()) == 0 {
		return plan
	}
	plan.from = make(map[ids.Conversation]*clientv1.Position, len(request.GetResume()))
	member := make(map[string]struct{}, len(summaries))
	for _, s := range summaries {
		member[s.GetConversationId()] = struct{}{}
	}
	for _, p := range request.GetResume() {
		if _, is := member[p.GetConversationId()]; is {
			plan.from[ids.Conversation(p.GetConversationId())] = p
		} else {
			plan.former = append(plan.former, p)
		}
	}
	return plan
}

// base returns the last seq that the client is assumed to have.
func (p resumePlan) base(s *historyv1.Summary) ids.Seq {
	if position, named := p.from[ids.Conversation(s.GetConversationId())]; named {
		seq := position.GetSeq()
		if bugResumeOffByOne {
			seq++
		}
		return ids.Seq(min(seq, s.GetHead()))
	}
	switch p.start {
	case clientv1.Start_START_FIRST:
		return ids.Seq(s.GetJoinedSeq() - 1)
	case clientv1.Start_START_DELIVERED:
		return ids.Seq(max(s.GetJoinedSeq()-1, min(s.GetCursor().GetDeliveredSeq(), s.GetHead())))
	default:
		return ids.Seq(s.GetHead())
	}
}
