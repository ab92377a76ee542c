package requests_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/gateway/requests"
)

// Every request of the table translates the errors of the history service in the same way.
func TestErrorsOfTheHistoryServiceAreTranslated(t *testing.T) {
	for name, f := range map[string]*clientv1.ClientFrame{
		"read":               read(&clientv1.Read{ConversationId: groupID}),
		"read_messages":      readMessages(&clientv1.ReadMessages{ConversationId: groupID}),
		"list_conversations": listConversations(&clientv1.ListConversations{}),
		"list_members":       listMembers(&clientv1.ListMembers{ConversationId: groupID}),
	} {
		for _, c := range []struct {
			cause      error
			code       conversationv1.ErrorCode
			field      string
			unexpected bool
		}{
			{status.Error(codes.NotFound, "secret"), conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND, "conversation_id", false},
			{status.Error(codes.InvalidArgument, "secret"), conversationv1.ErrorCode_ERROR_CODE_INVALID, "", false},
			{status.Error(codes.Unavailable, "secret"), conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE, "", true},
			{status.Error(codes.Internal, "secret"), conversationv1.ErrorCode_ERROR_CODE_INTERNAL, "", true},
			{context.DeadlineExceeded, conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE, "", true},
			{errors.New("secret"), conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE, "", true},
		} {
			t.Run(name+": "+status.Code(c.cause).String(), func(t *testing.T) {
				s := newStage(t, nil)
				s.history.err = c.cause
				answer, err := s.do(f, unbounded)
				require.Nil(t, answer)
				require.ErrorIs(t, err, c.cause)
				refused, unexpected := requests.Refusal(err)
				require.Equal(t, c.code, refused.GetCode())
				require.Equal(t, c.field, refused.GetField())
				require.Equal(t, c.unexpected, unexpected)
				require.NotEmpty(t, refused.GetMessage())
				require.NotContains(t, refused.GetMessage(), "secret", "the store's text is for operators only")
			})
		}
	}
}

// A hole in the log is reported to operators; the client is asked to try again.
func TestAHoleIsUnexpected(t *testing.T) {
	s := newStage(t, nil)
	s.history.page = &historyv1.ReadResponse{Head: 5}
	_, err := s.do(read(&clientv1.Read{ConversationId: groupID}), unbounded)
	refused, unexpected := requests.Refusal(err)
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE, refused.GetCode())
	require.True(t, unexpected)
}

func TestALimitSaysWhenToTryAgain(t *testing.T) {
	refused := requests.Limited("too many")
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_RATE_LIMITED, refused.GetCode())
	require.Equal(t, "too many", refused.GetMessage())
	require.Equal(t, uint32(1000), refused.GetRetryAfterMs())
}
