package e2e_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/frame"
)

// interposed is the real history, which a test may put another one in front of.
type interposed struct {
	historyv1.HistoryServiceClient // may be replaced before the first client connects

	installation historyv1.HistoryServiceClient // asked from the beginning, so never replaced
}

// GetInstallation is what the gateway polls while tests replace the rest.
func (h *interposed) GetInstallation(
	ctx context.Context, request *historyv1.GetInstallationRequest, options ...grpc.CallOption,
) (*historyv1.GetInstallationResponse, error) {
	return h.installation.GetInstallation(ctx, request, options...)
}

func removeBob() *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_RemoveMember{RemoveMember: &conversationv1.RemoveMember{Member: "bob"}}}
}

func addBob() *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_AddMembers{AddMembers: &conversationv1.AddMembers{Members: []string{"bob"}}}}
}

func TestNamedConversationsThatOneCannotKnowAreSaidToBeUnknown(t *testing.T) {
	s := newStage(t, nil)
	s.commit(group("bob"))
	eve := s.login("eve", &clientv1.Position{ConversationId: s.id, Seq: 1})
	require.Zero(t, eve.until(func(f *clientv1.ServerFrame) bool { return f.GetDetached() != nil }).GetDetached().GetLast())
	beyond := dialAt(t, s.url(), frame.JSON)
	answer := beyond.ask(&clientv1.ClientFrame{Request: &clientv1.ClientFrame_Connect{Connect: &clientv1.Connect{
		Token: token(t, "eve"), DeviceId: "d", Resume: []*clientv1.Position{{ConversationId: s.id, Seq: 1 << 63}},
	}}})
	require.Equal(t, "connect.resume[0].seq", answer.GetError().GetField())
}
