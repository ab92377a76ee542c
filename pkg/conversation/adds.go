package conversation

import conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

// adder is a kind whose commands make other users members.
type adder interface {
	adds(body *conversationv1.Body) []string
}

// Adds returns the users whom a command makes members in addition to its sender; empty for most commands. Gateways apply
// limits and policies for adding people to these users.
func Adds(body *conversationv1.Body) []string {
	if r := rowOf(KindOf(body)); r != nil {
		if kind, ok := r.rules.(adder); ok {
			return kind.adds(body)
		}
	}
	return nil
}

func (createKind) adds(body *conversationv1.Body) []string { return body.GetCreate().GetMembers() }

func (addMembersKind) adds(body *conversationv1.Body) []string {
	return body.GetAddMembers().GetMembers()
}
